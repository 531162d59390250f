"""A network in float16 that overflows, or computes its classes in it, must not reach a device."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from tests.export.quantizable import (
    KINDS,
    SCORES,
    WIDTH,
    Drawing,
    core_groups,
    exactly,
    images,
    noise_share,
    quantizable,
    ranges_of_kind,
)
from vidseg.export.graph import Graph
from vidseg.export.half import MAX_HALF, half_tensors, in_half, large_activations, rounded
from vidseg.export.lint import lint
from vidseg.export.observe import with_outputs
from vidseg.export.qdq import quantize
from vidseg.export.runner import GraphRunner
from vidseg.runtime.decoding import CLASS_MAP
from vidseg.runtime.engines.graph import INPUT


def master(kind: str) -> bytes:
    graph = Graph(quantizable(kind))
    return quantize(graph, core_groups(graph), ranges_of_kind(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_computes_in_float16_and_gives_the_classes_that_it_gave(kind: str) -> None:
    content = in_half(master(kind))
    graph = Graph(content)
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    products = [node for node in graph.nodes if node.op_type in {"Conv", "ConvTranspose", "Gemm", "MatMul"}]
    assert products
    assert all(graph.element_type(node.output[0]) == onnx.TensorProto.FLOAT16 for node in products)
    assert [finding for finding in lint(content) if finding.rule.level == "error"] == []
    before, after = Graph(master(kind)).model.graph, graph.model.graph
    assert (before.input, before.output) == (after.input, after.output)
    same = exactly(content, CLASS_MAP, images()) == exactly(master(kind), CLASS_MAP, images())
    assert same.mean() > 0.99


def test_what_float16_cannot_hold_stays_float32() -> None:
    model = onnx.load_from_string(quantizable("relu"))
    name = next(node.input[1] for node in model.graph.node if node.op_type == "Conv")
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    values = onnx.numpy_helper.to_array(weight).copy()
    values[0, 0, 0, 0] = 2 * MAX_HALF
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    content = in_half(model.SerializeToString())
    first, second = [node for node in Graph(content).nodes if node.op_type == "Conv"][:2]
    assert Graph(content).element_type(first.output[0]) == onnx.TensorProto.FLOAT
    assert Graph(content).element_type(second.output[0]) == onnx.TensorProto.FLOAT16
    large = in_half(quantizable("relu"), [second.output[0]])
    assert Graph(large).element_type(first.output[0]) == onnx.TensorProto.FLOAT16
    assert Graph(large).element_type(second.output[0]) == onnx.TensorProto.FLOAT
    wanted = exactly(quantizable("relu"), CLASS_MAP, images())
    assert (exactly(large, CLASS_MAP, images()) == wanted).mean() > 0.99


def test_everything_that_is_named_is_computed_in_float16() -> None:
    """What is not named is not watched, and would overflow unseen."""
    content = master("residual")
    graph = Graph(in_half(content))
    made = {name for node in graph.nodes if node.op_type != "Cast" for name in node.output}
    in_float16 = {name for name in made if graph.element_type(name) == onnx.TensorProto.FLOAT16}
    assert in_float16 == set(half_tensors(content))


def overflowing() -> tuple[bytes, str]:
    """A graph with an activation beyond float16, and its name."""
    rng, draw = np.random.default_rng(0), Drawing()
    large = draw.weight(rng.normal(0, 3e3, (WIDTH, WIDTH, 3, 3)).astype(np.float32))
    small = draw.weight(rng.normal(0, 1e-5, (WIDTH, WIDTH, 3, 3)).astype(np.float32))
    reaches_far = draw.node("Conv", [draw.stem(), large], pads=[1] * 4)
    return draw.finished(draw.node("Relu", [draw.node("Conv", [reaches_far, small], pads=[1] * 4)])), reaches_far


def test_an_activation_that_overflows_is_found_and_stays_float32() -> None:
    """In true float16: a CPU's engine computes it in float32, and sees nothing."""
    content, reaches_far = overflowing()
    beyond = large_activations(GraphRunner("far", "onnxruntime"), content, images())
    assert reaches_far in beyond
    wanted = classes_in_true_types(content)
    assert (classes_in_true_types(in_half(content)) == wanted).mean() < 0.5
    assert (classes_in_true_types(in_half(content, beyond)) == wanted).mean() > 0.99


@pytest.mark.parametrize("kind", ["relu", "clip", "residual", "product", "gemm", "prelu"])
def test_float16_is_judged_by_what_it_rounds(kind: str) -> None:
    """Compared with true float16, which adds up in float16 too: as far from float32 as that, in the same direction."""
    content = quantizable(kind)
    with_scores = with_outputs(Graph(content), [SCORES])
    half = in_half(with_scores, [SCORES])
    wanted = exactly(with_scores, SCORES, images(1))[0]
    true = run_in_true_types(half, SCORES)
    found = exactly(rounded(half), SCORES, images(1))[0]
    onnx.checker.check_model(onnx.load_from_string(rounded(half)), full_check=True)
    assert 1e-9 < noise_share(found, wanted) < 1e-4
    assert noise_share(found, true) < 2 * noise_share(true, wanted)
    unseen = exactly(half, SCORES, images(1))[0]  # what the engine makes of it itself
    assert noise_share(found, wanted) > noise_share(unseen, wanted)


def test_an_overflow_shows_when_float16_is_judged() -> None:
    content, reaches_far = overflowing()
    wanted = exactly(content, CLASS_MAP, images())
    assert (exactly(rounded(in_half(content)), CLASS_MAP, images()) == wanted).mean() < 0.5
    assert (exactly(rounded(in_half(content, [reaches_far])), CLASS_MAP, images()) == wanted).mean() > 0.99


def classes_in_true_types(content: bytes) -> NDArray[Any]:
    return run_in_true_types(content, CLASS_MAP)


def run_in_true_types(content: bytes, output: str) -> NDArray[Any]:
    with np.errstate(all="ignore"):
        (values,) = ReferenceEvaluator(onnx.load_from_string(content)).run([output], {INPUT: images(1)[0][None]})
    return np.asarray(values)
