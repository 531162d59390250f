"""A graph that the linter passes and an engine refuses costs an hour on the device; so does an alarm about nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from tests.export.quantizable import (
    KINDS,
    SCORES,
    WIDTH,
    Drawing,
    core_groups,
    images,
    measured_ranges,
    quantizable,
    ranges_of_kind,
)
from vidseg.export.graph import Graph
from vidseg.export.groups import find_groups
from vidseg.export.lint import (
    ACTIVATION,
    AXIS,
    BIAS,
    CLASSIFIER,
    DEPTHWISE,
    DOMAIN,
    EXPLICIT,
    INPUTS,
    INT8,
    NARROW,
    NORM,
    OWN,
    PAD,
    RANGE,
    RULES,
    SCALAR,
    SCALE,
    SHAPE,
    SKIP,
    ZERO,
    Rule,
    lint,
    quantized_products,
)
from vidseg.export.lowering import ONNXRUNTIME, OPENVINO
from vidseg.export.qdq import MASTER, QuantizedForm, quantize

Q, DQ = "QuantizeLinear", "DequantizeLinear"
Breaker = Callable[[], bytes]


def master(kind: str = "relu", form: QuantizedForm = MASTER) -> onnx.ModelProto:
    graph = Graph(quantizable(kind))
    return onnx.load_from_string(quantize(graph, core_groups(graph), ranges_of_kind(kind), form))


def serialized(model: onnx.ModelProto) -> bytes:
    content: bytes = model.SerializeToString()
    return content


def rules_of(content: bytes) -> set[Rule]:
    return {finding.rule for finding in lint(content)}


def nodes_of(model: onnx.ModelProto, operator: str) -> list[Any]:
    return [node for node in model.graph.node if node.op_type == operator]


def activation_pair(model: onnx.ModelProto) -> tuple[Any, Any]:
    quantizer = nodes_of(model, Q)[0]
    return quantizer, next(node for node in nodes_of(model, DQ) if node.input[0] == quantizer.output[0])


def constant(model: onnx.ModelProto, name: str) -> NDArray[Any]:
    return onnx.numpy_helper.to_array(next(tensor for tensor in model.graph.initializer if tensor.name == name))


def store(model: onnx.ModelProto, name: str, values: NDArray[Any]) -> str:
    for tensor in list(model.graph.initializer):
        if tensor.name == name:
            model.graph.initializer.remove(tensor)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(values), name))
    return name


def with_parameters(scale: Any, zero_point: Any, kind: str = "relu") -> bytes:
    """The one activation's pair with other parameters; None keeps what is there."""
    model = master(kind)
    quantizer, _ = activation_pair(model)
    for name, values in zip(quantizer.input[1:], (scale, zero_point), strict=True):
        if values is not None:
            store(model, name, values)
    return serialized(model)


def foreign_domain() -> bytes:
    model = master()
    for node in (*nodes_of(model, Q), *nodes_of(model, DQ)):
        node.domain = "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return serialized(model)


def without_zero_points() -> bytes:
    model = master()
    for node in activation_pair(model):
        del node.input[2:]
    return serialized(model)


def with_computed(position: int) -> bytes:
    """Scale or zero point out of a node."""
    model = master()
    quantizer, dequantizer = activation_pair(model)
    operator, value = ("Abs", quantizer.input[1]) if position == 1 else ("Identity", quantizer.input[2])
    model.graph.node.insert(0, helper.make_node(operator, [value], ["computed"]))
    quantizer.input[position] = dequantizer.input[position] = "computed"
    return serialized(model)


def with_shared_scale() -> bytes:
    model = master("signed")
    first, second = nodes_of(model, Q)
    for node in (second, next(node for node in nodes_of(model, DQ) if node.input[0] == second.output[0])):
        node.input[1] = first.input[1]
    return serialized(model)


def weight_dequantizer(model: onnx.ModelProto) -> Any:
    names = {tensor.name for tensor in model.graph.initializer}
    return next(node for node in nodes_of(model, DQ) if node.input[0] in names)


def with_lowest_weight() -> bytes:
    model = master()
    name = weight_dequantizer(model).input[0]
    values = constant(model, name).copy()
    values[0, 0, 0, 0] = -128
    store(model, name, values)
    return serialized(model)


def with_weight_axis(axis: int) -> bytes:
    model = master()
    weight_dequantizer(model).attribute[0].i = axis
    return serialized(model)


def with_one_weight_scale(kind: str = "relu") -> bytes:
    model = master(kind)
    node = weight_dequantizer(model)
    store(model, node.input[1], np.array(0.01, np.float32))
    store(model, node.input[2], np.array(0, np.int8))
    del node.attribute[:]
    return serialized(model)


def with_integer_bias(kind: type[np.signedinteger[Any]] = np.int32) -> bytes:
    model = master()
    conv = nodes_of(model, "Conv")[1]
    zeros = store(model, "bias/zero", np.zeros(WIDTH, kind))
    values = store(model, "bias/int32", np.arange(WIDTH, dtype=kind))
    scale = store(model, "bias/scale", np.full(WIDTH, 0.001, np.float32))
    model.graph.node.insert(0, helper.make_node(DQ, [values, scale, zeros], ["bias/dequantized"], axis=0))
    conv.input[2] = "bias/dequantized"
    return serialized(model)


def with_pair_before(operator: str, kind: str, number: int = 0) -> bytes:
    """What a node reads first goes through a pair of its own."""
    model = master(kind)
    node = nodes_of(model, operator)[number]
    place = list(model.graph.node).index(node)
    parameters = [
        store(model, "more/scale", np.array(0.1, np.float32)),
        store(model, "more/zero_point", np.array(0, np.int8)),
    ]
    pair = [
        helper.make_node(Q, [node.input[0], *parameters], ["more/quantized"]),
        helper.make_node(DQ, ["more/quantized", *parameters], ["more/dequantized"]),
    ]
    node.input[0] = "more/dequantized"
    for entry in reversed(pair):
        model.graph.node.insert(place, entry)
    return serialized(model)


def quantized_whole(draw: Drawing, data: str) -> bytes:
    graph = Graph(draw.finished(data))
    groups = core_groups(graph)
    return quantize(graph, groups, measured_ranges(graph, groups, images()))


def behind_pad() -> bytes:
    draw = Drawing()
    pads = draw.weight(np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
    padded = draw.node("Pad", [draw.stem(), pads], mode="reflect")
    return quantized_whole(draw, draw.conv(padded, (WIDTH, WIDTH, 3, 3), pads=[0] * 4))


def with_normalization() -> bytes:
    draw = Drawing()
    statistics = [draw.weight(np.ones(WIDTH, np.float32)) for _ in range(4)]
    return quantized_whole(
        draw, draw.node("BatchNormalization", [draw.conv(draw.stem(), (WIDTH, WIDTH, 3, 3)), *statistics])
    )


def with_all_groups(kind: str) -> bytes:
    graph = Graph(quantizable(kind))
    return quantize(graph, find_groups(graph), ranges_of_kind(kind))


BROKEN: dict[str, tuple[Breaker, set[Rule]]] = {
    "foreign domain": (foreign_domain, {DOMAIN}),
    "uint8": (lambda: with_parameters(None, np.array(0, np.uint8)), {INT8}),
    "int16": (lambda: with_parameters(None, np.array(0, np.int16)), {INT8}),
    "no zero point": (without_zero_points, {EXPLICIT}),
    "zero point 3": (lambda: with_parameters(None, np.array(3, np.int8)), {ZERO}),
    "computed zero point": (lambda: with_computed(2), {ZERO}),
    "scale 0": (lambda: with_parameters(np.array(0, np.float32), None), {SCALE}),
    "scale below 0": (lambda: with_parameters(np.array(-0.1, np.float32), None), {SCALE}),
    "scale no number": (lambda: with_parameters(np.array(np.nan, np.float32), None), {SCALE}),
    "infinite scale": (lambda: with_parameters(np.array(np.inf, np.float32), None), {SCALE}),
    "half scale": (lambda: with_parameters(np.array(0.1, np.float16), None), {SCALE}),
    "no scale": (lambda: with_parameters(np.zeros(0, np.float32), np.zeros(0, np.int8)), {SCALE, SCALAR}),
    "computed scale": (lambda: with_computed(1), {SCALE}),
    "shapes": (lambda: with_parameters(None, np.zeros(1, np.int8)), {SHAPE}),
    "one axis": (lambda: with_parameters(np.full(1, 0.1, np.float32), np.zeros(1, np.int8)), {SCALAR}),
    "shared scale": (with_shared_scale, {OWN}),
    "-128": (with_lowest_weight, {RANGE}),
    "axis 1": (lambda: with_weight_axis(1), {AXIS}),
    "one scale for a weight": (with_one_weight_scale, {AXIS}),
    "32-bit bias": (with_integer_bias, {BIAS}),
    "8-bit bias": (lambda: with_integer_bias(np.int8), {BIAS}),
    "before a pooling": (lambda: with_pair_before("GlobalAveragePool", "gemm"), {INPUTS}),
    "before an activation": (lambda: with_pair_before("Relu", "relu", 1), {ACTIVATION}),
    "both branches": (lambda: with_pair_before("Add", "residual"), {SKIP}),
    "behind Pad": (behind_pad, {PAD}),
    "BatchNormalization": (with_normalization, {NORM}),
    "narrow": (lambda: with_all_groups("relu"), {NARROW}),
    "depthwise": (lambda: serialized(master("depthwise")), {DEPTHWISE}),
    "classifier": (lambda: with_pair_before("ArgMax", "relu"), {CLASSIFIER, INPUTS}),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_rule_is_found_and_no_other_is_reported(case: str) -> None:
    make, expected = BROKEN[case]
    assert rules_of(make()) == expected


def test_each_rule_is_broken_by_one_graph() -> None:
    assert set().union(*(rules for _, rules in BROKEN.values())) == set(RULES)
    assert len({rule.name for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("kind", KINDS)
def test_float_graphs_have_no_finding(kind: str) -> None:
    assert lint(quantizable(kind)) == []
    assert quantized_products(quantizable(kind)) == (0, len(find_groups(Graph(quantizable(kind)))))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_for_tensorrt_keeps_all_rules(kind: str) -> None:
    content = serialized(master(kind))
    assert rules_of(content) == ({DEPTHWISE} if kind == "depthwise" else set())
    graph = Graph(quantizable(kind))
    assert quantized_products(content) == (len(core_groups(graph)), len(find_groups(graph)))


@pytest.mark.parametrize("kind", KINDS)
def test_even_all_groups_together_break_no_rule_that_an_engine_insists_on(kind: str) -> None:
    """The image and the classifier's input among them."""
    assert all(finding.rule.level == "advice" for finding in lint(with_all_groups(kind)))


@pytest.mark.parametrize("form", [OPENVINO, ONNXRUNTIME])
def test_forms_for_processors_are_no_graphs_for_tensorrt(form: QuantizedForm) -> None:
    assert INT8 in rules_of(serialized(master("signed", form)))


def test_findings_name_the_rule_the_place_and_the_reason_errors_first() -> None:
    model = onnx.load_from_string(with_weight_axis(1))
    quantizer, _ = activation_pair(model)
    store(model, quantizer.input[2], np.array(3, np.int8))
    findings = lint(serialized(model))
    assert [finding.rule.level for finding in findings] == ["error", "error", "advice"]
    assert str(findings[0]) == f"error: zero point 0: {quantizer.output[0]}: 3. {ZERO.reason}"
    assert "axis 1 for 0" in str(findings[-1])


def test_constants_may_be_nodes_as_well_as_stored_weights() -> None:
    """As PyTorch exports them; engines see no difference."""
    model = master()
    nodes = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in model.graph.initializer]
    nodes += list(model.graph.node)
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.node.extend(nodes)
    assert lint(serialized(model)) == []
    assert quantized_products(serialized(model)) == (1, 3)


def test_a_weight_for_a_grouped_transposed_convolution_has_one_scale() -> None:
    assert AXIS not in rules_of(with_one_weight_scale("grouped transposed"))
    assert AXIS in rules_of(with_one_weight_scale("transposed"))


def test_a_sigmoid_in_the_middle_is_no_classifier() -> None:
    draw = Drawing()
    gate = draw.node("Sigmoid", [draw.conv(draw.stem(), (WIDTH, WIDTH, 3, 3))])
    content = quantized_whole(draw, draw.conv(gate, (WIDTH, WIDTH, 3, 3)))
    assert rules_of(content) == set()


@pytest.mark.parametrize("operator", ["Resize", "Transpose", "Sigmoid", "Identity"])
def test_the_classifier_is_found_behind_what_only_moves_its_scores(operator: str) -> None:
    model = onnx.load_from_string(with_pair_before("ArgMax", "relu"))
    argmax = nodes_of(model, "ArgMax")[0]
    store(model, "sizes", np.array([1, 5, 48, 64], np.int64))
    inputs = [argmax.input[0], *(["", "", "sizes"] if operator == "Resize" else [])]
    between = helper.make_node(operator, inputs, ["between"])
    model.graph.node.insert(list(model.graph.node).index(argmax), between)
    argmax.input[0] = "between"
    assert CLASSIFIER in rules_of(serialized(model))


def test_weights_that_alone_are_quantized_are_computed_in_float() -> None:
    """They save memory; rules about kernels of 8 bits do not concern them."""
    model = onnx.load_from_string(with_all_groups("depthwise"))
    sources = {node.output[0]: node.input[0] for node in nodes_of(model, Q)}
    sources |= {node.output[0]: sources[node.input[0]] for node in nodes_of(model, DQ) if node.input[0] in sources}
    for node in model.graph.node:
        if node.op_type not in {Q, DQ}:
            node.input[:] = [sources.get(name, name) for name in node.input]
    content = Graph(serialized(model)).serialized()
    assert lint(content) == []
    assert quantized_products(content) == (0, 3)


def test_a_weight_may_be_quantized_in_the_graph_by_channel() -> None:
    """As training with fake quantization exports it."""
    model = master()
    node = weight_dequantizer(model)
    values = constant(model, node.input[0]).astype(np.float32)
    store(model, node.input[0], values)
    quantizer = helper.make_node(Q, list(node.input), ["weight/quantized"], axis=0)
    model.graph.node.insert(0, quantizer)
    node.input[0] = "weight/quantized"
    assert lint(serialized(model)) == []


def test_a_product_with_a_vector_has_no_channels_to_scale() -> None:
    graph = helper.make_graph(
        [
            helper.make_node(DQ, ["w", "s", "z"], ["wd"]),
            helper.make_node("MatMul", ["x", "wd"], ["y"]),
        ],
        "vector",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 8, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 8])],
        [
            onnx.numpy_helper.from_array(np.ones(16, np.int8), "w"),
            onnx.numpy_helper.from_array(np.array(0.1, np.float32), "s"),
            onnx.numpy_helper.from_array(np.array(0, np.int8), "z"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    assert lint(serialized(model)) == []


def test_the_scores_that_are_linted_are_those_of_the_graph() -> None:
    assert nodes_of(master(), "ArgMax")[0].input[0] == SCORES
