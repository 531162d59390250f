"""What counts as scores stays float: too little, and classes flicker at every border; too much, and INT8 is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.export.broken import attention
from tests.export.quantizable import KINDS, SCORES, WIDTH, Drawing, quantizable
from vidseg.export.graph import Graph, class_scores

Ending = Callable[[Drawing, str], str]


def drawn(ending: Ending, *more: str, kind: int = TensorProto.UINT8) -> Graph:
    """A graph that ends with what `ending` makes of the scores of 5 classes; `more` are further outputs."""
    draw = Drawing()
    draw.conv(draw.stem(), (5, WIDTH, 1, 1))
    draw.nodes[-1].output[0] = SCORES
    outputs = [ending(draw, SCORES), *more]
    graph = helper.make_graph(
        draw.nodes,
        "scores",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 24, 32, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT if name in more else kind, None) for name in outputs],
        draw.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(model, strict_mode=True))
    return Graph(model.SerializeToString())


def greatest(draw: Drawing, tensor: str, axis: int = 1) -> str:
    index = draw.node("ArgMax", [tensor], axis=axis, keepdims=0)
    return draw.node("Cast", [draw.node("Cast", [index], to=TensorProto.FLOAT)], to=TensorProto.UINT8)


def above_half(draw: Drawing, tensor: str) -> str:
    found = draw.node("Greater", [tensor, draw.weight(np.array(0.5, np.float32))])
    return draw.node("Cast", [found], to=TensorProto.UINT8)


def larger(draw: Drawing, tensor: str) -> str:
    sizes = draw.weight(np.array([1, 5, 48, 64], np.int64))
    return draw.node("Resize", [tensor, "", "", sizes], mode="linear")


def as_rows(draw: Drawing, tensor: str) -> str:
    rows = draw.node("Reshape", [tensor, draw.weight(np.array([1, 5, -1], np.int64))])
    return draw.node("Transpose", [rows], perm=[0, 2, 1])


def recoloured(draw: Drawing, tensor: str) -> str:
    """Classes by other numbers, then as gray values."""
    index = draw.node("ArgMax", [tensor], axis=1)
    other = draw.node("Gather", [draw.weight(np.arange(5, dtype=np.float32)[::-1].copy()), index])
    return draw.node("Cast", [draw.node("Mul", [other, draw.weight(np.array(50, np.float32))])], to=TensorProto.UINT8)


def chosen(draw: Drawing, tensor: str) -> str:
    constants = [draw.weight(np.array(value, np.float32)) for value in (255, 0)]
    above = draw.node("Less", [draw.weight(np.array(0.5, np.float32)), draw.node("Sigmoid", [tensor])])
    return draw.node("Cast", [draw.node("Where", [above, *constants])], to=TensorProto.UINT8)


ENDINGS: dict[str, tuple[Ending, list[str]]] = {
    "ArgMax": (greatest, []),
    "Softmax, Resize, ArgMax": (
        lambda draw, data: greatest(draw, larger(draw, draw.node("Softmax", [data], axis=1))),
        ["Softmax", "Resize"],
    ),
    "Sigmoid, Greater": (lambda draw, data: above_half(draw, draw.node("Sigmoid", [data])), ["Sigmoid"]),
    "rows": (lambda draw, data: greatest(draw, as_rows(draw, data), axis=2), ["Reshape", "Transpose"]),
    "float16": (
        lambda draw, data: greatest(draw, draw.node("Cast", [data], to=TensorProto.FLOAT16)),
        ["Cast"],
    ),
    "recoloured": (recoloured, []),
    "chosen": (chosen, ["Sigmoid"]),
}


def operators(graph: Graph, tensors: Any) -> list[str]:
    """Of what makes these tensors, in the order of the graph; the classifier's own left out."""
    return [node.op_type for node in graph.nodes if node.output[0] in tensors and node.output[0] != SCORES]


@pytest.mark.parametrize("case", ENDINGS)
def test_scores_lie_between_the_classifier_and_what_decides(case: str) -> None:
    ending, between = ENDINGS[case]
    graph = drawn(ending)
    scores = class_scores(graph)
    assert SCORES in scores
    assert operators(graph, scores) == between
    assert len(scores) == len(between) + 1


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_computed_before_the_classifier_is_no_score(kind: str) -> None:
    assert class_scores(Graph(quantizable(kind))) == {SCORES}


def test_a_branch_that_also_reads_the_scores_changes_nothing() -> None:
    def ending(draw: Drawing, data: str) -> str:
        draw.node("ReduceMax", [draw.node("Softmax", [data], axis=1)], axes=[1])
        draw.nodes[-1].output[0] = "confidence"
        return greatest(draw, data)

    assert class_scores(drawn(ending)) == {SCORES}
    assert class_scores(drawn(ending, "confidence")) == {SCORES}


def test_an_output_that_hands_the_scores_out_changes_nothing() -> None:
    """As the contract's third output does."""

    def ending(draw: Drawing, data: str) -> str:
        draw.node("Identity", [data])
        draw.nodes[-1].output[0] = "scores"
        return greatest(draw, larger(draw, data))

    graph = drawn(ending, "scores")
    assert operators(graph, class_scores(graph)) == ["Resize"]


def test_the_softmax_of_attention_decides_nothing() -> None:
    assert class_scores(Graph(attention())) == {SCORES}


def test_a_comparison_in_the_middle_decides_nothing() -> None:
    """As unpooling is written without indices."""

    def ending(draw: Drawing, data: str) -> str:
        zero = draw.weight(np.array(0, np.float32))
        kept = draw.node("Where", [draw.node("Greater", [data, zero]), data, zero])
        return greatest(draw, draw.conv(kept, (5, 5, 1, 1)))

    graph = drawn(ending)
    scores = class_scores(graph)
    assert operators(graph, scores) == ["Conv"]
    assert SCORES not in scores  # what is compared in the middle


def test_without_a_decision_the_outputs_are_the_scores() -> None:
    """Whoever reads them decides."""
    graph = drawn(lambda draw, data: larger(draw, draw.node("Softmax", [data], axis=1)), kind=TensorProto.FLOAT)
    assert operators(graph, class_scores(graph)) == ["Softmax", "Resize"]


def test_a_graph_of_whole_numbers_has_no_scores() -> None:
    graph = drawn(lambda draw, data: draw.node("Cast", [data], to=TensorProto.UINT8))
    assert class_scores(graph) == frozenset()
