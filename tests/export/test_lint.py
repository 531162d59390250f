"""A graph that the linter passes and an engine refuses costs an hour on the device; so does an alarm about nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.export.broken import (
    activation_pair,
    attention,
    behind_pad,
    foreign_domain,
    master,
    nodes_of,
    quantized_whole,
    rules_of,
    serialized,
    store,
    transposed,
    with_all_groups,
    with_computed,
    with_float_weight,
    with_integer_bias,
    with_integers,
    with_lowest_weight,
    with_normalization,
    with_one_factor,
    with_one_weight_scale,
    with_pair_before,
    with_parameters,
    with_shared_scale,
    with_weight_axis,
    without_zero_points,
)
from tests.export.quantizable import KINDS, SCORES, WIDTH, Drawing, core_groups, quantizable
from vidseg.export import lint_rules
from vidseg.export.graph import Graph
from vidseg.export.groups import find_groups
from vidseg.export.half import in_half
from vidseg.export.lint import DQ, Q, lint, quantized_products
from vidseg.export.lint_rules import (
    ACTIVATION,
    AXIS,
    BIAS,
    CLASSIFIER,
    DEPTHWISE,
    DOMAIN,
    EXPLICIT,
    FACTORS,
    INPUTS,
    INT8,
    INTEGER,
    NARROW,
    NORM,
    OWN,
    PAD,
    RANGE,
    SCALAR,
    SCALE,
    SHAPE,
    SKIP,
    ZERO,
    Rule,
)
from vidseg.export.lowering import ONNXRUNTIME, OPENVINO
from vidseg.export.qdq import QuantizedForm

Breaker = Callable[[], bytes]

RULES = {rule for rule in vars(lint_rules).values() if isinstance(rule, Rule)}


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
    "one scale for a float weight": (lambda: with_float_weight(None), {AXIS}),
    "axis 1 of a float weight": (lambda: with_float_weight(1), {AXIS}),
    "axis 0 of a transposed float weight": (lambda: with_float_weight(0, "transposed"), {AXIS}),
    "float weight": (lambda: with_one_factor(0), {FACTORS}),
    "float activation": (lambda: with_one_factor(1), {FACTORS}),
    "ConvInteger": (lambda: with_integers("ConvInteger", "xw"), {INTEGER}),
    "MatMulInteger": (lambda: with_integers("MatMulInteger", "xw"), {INTEGER}),
    "DynamicQuantizeLinear": (lambda: with_integers("DynamicQuantizeLinear", "f"), {INTEGER}),
    "QLinearConv": (lambda: with_integers("QLinearConv", "xszwszsz"), {INTEGER}),
    "QLinearAdd": (lambda: with_integers("QLinearAdd", "xszxszsz", "com.microsoft"), {INTEGER}),
    "between an addition and its activation": (lambda: with_pair_before("Relu", "residual", 2), {ACTIVATION}),
    "narrow, transposed": (lambda: transposed((WIDTH, 4)), {NARROW}),
    "depthwise, transposed": (lambda: transposed((WIDTH, 2), WIDTH), {DEPTHWISE}),
    "classifier": (lambda: with_pair_before("ArgMax", "relu"), {CLASSIFIER, INPUTS}),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_rule_is_found_and_no_other_is_reported(case: str) -> None:
    make, expected = BROKEN[case]
    assert rules_of(make()) == expected


def test_each_rule_is_broken_by_one_graph() -> None:
    assert set().union(*(rules for _, rules in BROKEN.values())) == RULES
    assert len({rule.name for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("kind", KINDS)
def test_float_graphs_have_no_finding(kind: str) -> None:
    assert lint(quantizable(kind)) == []
    assert quantized_products(quantizable(kind)) == (0, len(find_groups(Graph(quantizable(kind)))))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_for_tensorrt_keeps_all_rules(kind: str) -> None:
    """In float32 and in float16."""
    graph = Graph(quantizable(kind))
    for content in (serialized(master(kind)), in_half(serialized(master(kind)))):
        assert rules_of(content) == ({DEPTHWISE} if kind == "depthwise" else set())
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


def test_the_softmax_of_attention_is_no_classifier() -> None:
    assert rules_of(attention()) == {INPUTS}


@pytest.mark.parametrize("operator", ["Resize", "Transpose", "Softmax", "Identity"])
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
    """They save memory, not time; rules about kernels of 8 bits do not concern them."""
    model = onnx.load_from_string(with_all_groups("depthwise"))
    sources = {node.output[0]: node.input[0] for node in nodes_of(model, Q)}
    sources |= {node.output[0]: sources[node.input[0]] for node in nodes_of(model, DQ) if node.input[0] in sources}
    for node in model.graph.node:
        if node.op_type not in {Q, DQ}:
            node.input[:] = [sources.get(name, name) for name in node.input]
    content = Graph(serialized(model)).serialized()
    assert rules_of(content) == {FACTORS}
    assert quantized_products(content) == (0, 3)


@pytest.mark.parametrize(("kind", "axis"), [("relu", 0), ("transposed", 1), ("grouped transposed", None)])
def test_a_weight_may_be_quantized_in_the_graph_by_channel(kind: str, axis: int | None) -> None:
    """As training with fake quantization exports it."""
    assert lint(with_float_weight(axis, kind)) == []


@pytest.mark.parametrize(("axis", "rules"), [(0, set()), (1, {AXIS}), (None, {AXIS})])
def test_a_weight_may_be_turned_before_its_product(axis: int | None, rules: set[Rule]) -> None:
    """As PyTorch exports a linear layer: (out, in), quantized along the first axis, then transposed."""
    model = master("matmul")
    product = nodes_of(model, "MatMul")[0]
    scale = np.full(WIDTH, 0.01, np.float32) if axis is not None else np.array(0.01, np.float32)
    names = [
        store(model, "w", np.ones((WIDTH, WIDTH), np.float32)),
        store(model, "s", scale),
        store(model, "z", np.zeros(scale.shape, np.int8)),
    ]
    attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
    for node in (
        helper.make_node("Transpose", ["wd"], ["wt"]),
        helper.make_node(DQ, ["wq", *names[1:]], ["wd"], **attributes),
        helper.make_node(Q, names, ["wq"], **attributes),
    ):
        model.graph.node.insert(0, node)
    product.input[1] = "wt"
    assert rules_of(serialized(model)) == rules
    assert quantized_products(serialized(model)) == (1, 3)


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
    assert rules_of(serialized(model)) == {FACTORS}


def test_the_scores_that_are_linted_are_those_of_the_graph() -> None:
    assert nodes_of(master(), "ArgMax")[0].input[0] == SCORES
