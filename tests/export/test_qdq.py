"""A graph that is quantized another way than it was measured has another accuracy than its report says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from onnx import TensorProto, helper

from tests.export.quantizable import (
    KINDS,
    SCORES,
    WIDTH,
    Drawing,
    core_groups,
    exactly,
    images,
    measured_ranges,
    noise_share,
    quantizable,
    ranges_of_kind,
    run,
)
from vidseg.calibration.ranges import QMAX
from vidseg.export.graph import Graph, attribute_of
from vidseg.export.groups import FusionGroup, find_groups
from vidseg.export.lowering import ONNXRUNTIME, OPENVINO, for_openvino
from vidseg.export.observe import with_outputs
from vidseg.export.qdq import MASTER, QuantizedForm, Ranges, channel_axis, quantize, quantize_weight

FORMS = {"master": MASTER, "openvino": OPENVINO, "onnxruntime": ONNXRUNTIME}
# Measured on these graphs, in exact arithmetic and in each engine: 2e-5..9e-4; products of products up to 2e-3.
NOISE = {"product": 4e-3}
weights = arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3)),
    elements=st.floats(-1e6, 1e6, width=32),
)


def scores_of(content: bytes) -> bytes:
    return with_outputs(Graph(content), [SCORES])


def candidate(kind: str, form: QuantizedForm) -> bytes:
    graph = Graph(quantizable(kind))
    return quantize(graph, core_groups(graph), ranges_of_kind(kind), form)


def initializers(content: bytes) -> dict[str, NDArray[Any]]:
    graph = onnx.load_from_string(content).graph
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}


@given(weights, st.sampled_from([None, 0, 1, 2]), st.sampled_from([QMAX, 63]))
@settings(deadline=None)
def test_a_weight_is_off_by_half_a_scale_at_most(values: NDArray[np.float32], axis: int | None, qmax: int) -> None:
    quantized, scale = quantize_weight(values, axis, qmax)
    assert quantized.dtype == np.int8
    assert np.abs(quantized.astype(int)).max() <= qmax
    assert scale.dtype == np.float32
    assert (scale > 0).all()
    assert scale.shape == (() if axis is None else (values.shape[axis],))
    spread = scale.reshape([-1 if number == axis else 1 for number in range(3)]).astype(np.float64)
    error = np.abs(quantized * spread - values.astype(np.float64))
    assert (error <= spread * (0.5 + 1e-4)).all()


@given(weights)
def test_each_channel_uses_all_its_levels(values: NDArray[np.float32]) -> None:
    quantized, _ = quantize_weight(values, 0)
    used = np.abs(quantized.astype(int)).max(axis=(1, 2))
    assert set(used[np.abs(values).max(axis=(1, 2)) > 1e-30]) <= {QMAX}
    assert not used[np.abs(values).max(axis=(1, 2)) == 0].any()


def pair_model(form: QuantizedForm, amax: float, nonnegative: bool) -> onnxruntime.InferenceSession:
    """x -> Q -> DQ -> a product with 1, as `quantize` writes it."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "pair",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [256, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [256, 1])],
        [onnx.numpy_helper.from_array(np.ones((1, 1), np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    whole = Graph(model.SerializeToString())
    ranges = Ranges({"x": amax}, frozenset({"x"} if nonnegative else ()))
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    content = with_outputs(Graph(quantize(whole, find_groups(whole), ranges, form)), ["x/dequantized"])
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


@given(
    st.sampled_from([("master", False), ("openvino", False), ("openvino", True)]),
    st.floats(2.0**-100, 2.0**100, width=32),
    st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=40)
def test_an_activation_is_off_by_half_a_scale_at_most_within_its_range_and_clipped_beyond(
    written: tuple[str, bool], amax: float, seed: int
) -> None:
    name, nonnegative = written
    values = np.random.default_rng(seed).uniform(0 if nonnegative else -2, 2, (256, 1)).astype(np.float32) * amax
    values[:2, 0] = amax, 0
    values = values.astype(np.float32)
    (found,) = pair_model(FORMS[name], amax, nonnegative).run(["x/dequantized"], {"x": values})
    scale = amax / (255 if nonnegative else QMAX)
    inside = np.abs(values) <= amax
    assert (np.abs(found - values.astype(np.float64))[inside] <= scale * (0.5 + 1e-4)).all()
    above, below = found[values > amax], found[values < -amax]
    assert np.allclose(above, amax, rtol=1e-5)
    assert np.allclose(below, -amax, rtol=0.01)  # unsigned ones reach one step further
    assert found[1, 0] == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_every_operator_means_what_the_float_graph_does(kind: str, name: str) -> None:
    wanted = run(scores_of(quantizable(kind)), SCORES, images())
    content = scores_of(candidate(kind, FORMS[name]))
    share = noise_share(exactly(content, SCORES, images()), wanted)
    assert 1e-7 < share < NOISE.get(kind, 1.5e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_every_operator_is_computed_right_in_the_form_of_each_engine(kind: str) -> None:
    """With 8-bit kernels: sums that overflow, or scales along another axis than the weight's, show here."""
    wanted = run(scores_of(quantizable(kind)), SCORES, images())
    in_onnxruntime = run(scores_of(candidate(kind, ONNXRUNTIME)), SCORES, images(), "onnxruntime")
    in_openvino = run(for_openvino(scores_of(candidate(kind, OPENVINO))), SCORES, images(), "openvino")
    for found in (in_onnxruntime, in_openvino):
        assert noise_share(found, wanted) < NOISE.get(kind, 1.5e-3)


@pytest.mark.parametrize("kind", ["relu", "residual", "grouped transposed", "matmul left"])
@pytest.mark.parametrize("name", ["master", "openvino"])
def test_forms_for_one_engine_run_in_the_others(kind: str, name: str) -> None:
    """Weights of 127 may saturate on processors without VNNI, but the graph is the same."""
    wanted = run(scores_of(quantizable(kind)), SCORES, images())
    content = scores_of(candidate(kind, FORMS[name]))
    assert noise_share(run(content, SCORES, images(), "onnxruntime"), wanted) < 0.1
    assert noise_share(run(content, SCORES, images(), "openvino"), wanted) < 0.1


@pytest.mark.parametrize("name", FORMS)
def test_a_graph_without_quantized_groups_gives_what_float_gives(name: str) -> None:
    graph = Graph(quantizable("residual"))
    content = quantize(graph, [], ranges_of_kind("residual"), FORMS[name])
    assert not any("QuantizeLinear" in node.op_type for node in Graph(content).nodes)
    for output in (SCORES, "class_map"):
        plain = quantizable("residual")
        if output == SCORES:
            content, plain = scores_of(content), scores_of(plain)
        assert np.array_equal(run(content, output, images()), run(plain, output, images()))


@pytest.mark.parametrize("kind", KINDS)
def test_the_float_graph_stays_and_the_same_input_gives_the_same_bytes(kind: str) -> None:
    graph = Graph(quantizable(kind))
    groups, ranges = core_groups(graph), ranges_of_kind(kind)
    before = graph.model.SerializeToString(deterministic=True)
    first = quantize(graph, groups, ranges)
    assert graph.model.SerializeToString(deterministic=True) == before
    assert find_groups(graph) == find_groups(Graph(quantizable(kind)))
    turned = Ranges(dict(reversed(list(ranges.amax.items()))), ranges.nonnegative)
    assert quantize(Graph(quantizable(kind)), list(reversed(groups)), turned) == first


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FORMS)
def test_parameters_are_those_of_the_form(kind: str, name: str) -> None:
    form, content, ranges = FORMS[name], candidate(kind, FORMS[name]), ranges_of_kind(kind)
    constants = initializers(content)
    quantizers = [node for node in Graph(content).nodes if node.op_type == "QuantizeLinear"]
    assert quantizers
    for node in quantizers:
        scale, zero_point = (constants[name] for name in node.input[1:])
        nonnegative = node.input[0] in ranges.nonnegative
        assert scale.shape == zero_point.shape == ()
        assert scale == np.float32(ranges.amax[node.input[0]] / (255 if form.unsigned and nonnegative else QMAX))
        assert zero_point.dtype == (np.uint8 if form.unsigned else np.int8)
        assert zero_point == (128 if form.unsigned and not nonnegative else 0)
    kernels = [values for name, values in constants.items() if name.endswith("/int8")]
    assert all(int(np.abs(values.astype(int)).max()) <= form.weight_qmax for values in kernels)
    assert len(kernels) == len({group.weight for group in core_groups(Graph(quantizable(kind))) if group.weight})


def test_an_activation_that_many_read_has_one_pair() -> None:
    content = candidate("shared input", MASTER)
    sources = [node.input[0] for node in Graph(content).nodes if node.op_type == "QuantizeLinear"]
    assert len(sources) == len(set(sources)) == 2  # what both convolutions read, and the skip branch


def test_only_the_skip_branch_of_an_addition_is_quantized() -> None:
    graph = Graph(candidate("residual", MASTER))
    (addition,) = [node for node in graph.nodes if node.op_type == "Add"]
    kinds = [producer.op_type for name in addition.input if (producer := graph.producer(name)) is not None]
    assert sorted(kinds) == ["Conv", "DequantizeLinear"]


@pytest.mark.parametrize("name", ["master", "openvino", "onnxruntime"])
def test_results_are_quantized_behind_their_activation_where_the_engine_needs_it(name: str) -> None:
    graph = Graph(candidate("relu", FORMS[name]))
    classifier = graph.producer(SCORES)
    assert classifier is not None
    source = graph.producer(classifier.input[0])
    assert source is not None
    assert source.op_type == ("DequantizeLinear" if name == "onnxruntime" else "Relu")


def test_what_other_groups_read_stays_float() -> None:
    """A group that goes back to float goes alone."""
    graph = Graph(quantizable("signed"))
    first, second = core_groups(graph)
    for kept, left in ((first, second), (second, first)):
        found = Graph(quantize(graph, [kept], ranges_of_kind("signed")))
        assert {input_kind(found, kept)} == {"DequantizeLinear"}
        assert "DequantizeLinear" not in {input_kind(found, left)}


def input_kind(graph: Graph, group: FusionGroup) -> str:
    node = graph.producer(group.name)
    assert node is not None
    source = graph.producer(node.input[0])
    return "" if source is None else str(source.op_type)


def test_a_missing_range_is_an_error() -> None:
    graph = Graph(quantizable("relu"))
    with pytest.raises(KeyError):
        quantize(graph, core_groups(graph), Ranges({}))


def test_a_range_of_nothing_gives_a_scale_that_engines_take() -> None:
    graph = Graph(quantizable("relu"))
    (group,) = core_groups(graph)
    for form in FORMS.values():
        ranges = Ranges(dict.fromkeys([*group.inputs, group.result], 0.0), frozenset(group.inputs))
        constants = initializers(quantize(graph, [group], ranges, form))
        scales = [values for name, values in constants.items() if name.endswith("/scale")]
        assert all((scale >= np.finfo(np.float32).tiny).all() for scale in scales)


@pytest.mark.parametrize(
    ("operator", "shape", "attributes", "axis"),
    [
        ("Conv", (8, 4, 3, 3), {"group": 2}, 0),
        ("ConvTranspose", (8, 4, 2, 2), {}, 1),
        ("ConvTranspose", (8, 4, 2, 2), {"group": 2}, None),
        ("Gemm", (8, 4), {}, 1),
        ("Gemm", (8, 4), {"transB": 1}, 0),
        ("MatMul", (8, 4), {}, 1),
        ("MatMul", (2, 8, 4), {}, 2),
    ],
)
def test_scales_run_along_the_output_channels(
    operator: str, shape: tuple[int, ...], attributes: Mapping[str, Any], axis: int | None
) -> None:
    node = helper.make_node(operator, ["x", "w"], ["y"], **attributes)
    assert channel_axis(node, len(shape), "w") == axis


def test_scales_run_along_the_rows_of_a_weight_on_the_left() -> None:
    node = helper.make_node("MatMul", ["w", "x"], ["y"])
    assert channel_axis(node, 2, "w") == 0
    assert channel_axis(node, 3, "w") == 1


@pytest.mark.parametrize("kind", ["signed", "relu", "transposed", "grouped transposed", "gemm"])
def test_a_shift_is_added_to_the_bias_of_its_group_alone(kind: str) -> None:
    """With and without a bias there before."""
    graph = Graph(quantizable(kind))
    ranges = ranges_of_kind(kind)
    for group in core_groups(graph):
        correction = np.linspace(-1, 1, group.channels_out, dtype=np.float32)
        shifted = replace(ranges, bias_correction={group.name: correction})
        contents = [quantize(graph, [group], some, MASTER) for some in (ranges, shifted)]
        before, after = (
            exactly(with_outputs(Graph(content), [group.name]), group.name, images()) for content in contents
        )
        channels = np.moveaxis(after - before, 2 if before.ndim == 5 else -1, -1).reshape(-1, group.channels_out)
        assert np.allclose(channels, correction, atol=1e-4)


def test_a_shift_of_a_bias_that_is_computed_or_weighted_does_no_harm() -> None:
    draw = Drawing()
    stem = draw.stem()
    computed = draw.node("Flatten", [draw.node("GlobalAveragePool", [stem])])
    zeros = draw.weight(np.zeros(1, np.int64))
    computed = draw.node("Squeeze", [computed, zeros])
    graph = Graph(draw.finished(draw.node("Conv", [stem, draw.random(WIDTH, WIDTH, 1, 1), computed])))
    group = core_groups(graph)[0]
    ranges = measured_ranges(graph, [group], images())
    shifted = replace(ranges, bias_correction={group.name: np.ones(WIDTH, np.float32)})
    assert quantize(graph, [group], shifted) == quantize(graph, [group], ranges)


def test_a_shift_of_a_weighted_bias_is_what_was_asked_for() -> None:
    draw = Drawing()
    stem = draw.stem()
    squeezed = draw.node("Flatten", [draw.node("GlobalAveragePool", [stem])])
    excited = draw.node("Gemm", [squeezed, draw.random(WIDTH, WIDTH), draw.random(WIDTH)], beta=0.5)
    shape = draw.weight(np.array([1, WIDTH, 1, 1], np.int64))
    graph = Graph(draw.finished(draw.node("Mul", [stem, draw.node("Reshape", [excited, shape])])))
    (group,) = core_groups(graph)
    ranges = measured_ranges(graph, [group], images())
    shifted = replace(ranges, bias_correction={group.name: np.full(WIDTH, 3, np.float32)})
    before, after = (
        exactly(with_outputs(Graph(quantize(graph, [group], some)), [group.name]), group.name, images())
        for some in (ranges, shifted)
    )
    assert np.allclose(after - before, 3, atol=1e-4)


def test_weights_shared_by_groups_are_stored_once_and_other_readers_keep_the_float_one() -> None:
    draw = Drawing()
    stem = draw.stem()
    weight = draw.random(WIDTH, WIDTH, 1, 1)
    names = [draw.node("Conv", [stem, weight]), draw.node("Conv", [draw.node("Neg", [stem]), weight])]
    graph = Graph(draw.finished(draw.node("Mul", names)))
    groups = core_groups(graph)
    ranges = measured_ranges(graph, groups, images())
    both = Graph(quantize(graph, groups, ranges))
    assert weight not in initializers(both.serialized())
    assert sum(node.op_type == "DequantizeLinear" and attribute_of(node, "axis", 9) == 0 for node in both.nodes) == 1
    one = quantize(graph, groups[:1], ranges)
    other = Graph(one).producer(groups[1].name)
    assert other is not None
    assert other.input[1] == weight


def test_names_that_end_like_ours_keep_their_values() -> None:
    """As TensorFlow calls its weights: an activation `block` beside a weight `block/scale`."""
    graph = Graph(quantizable("relu"))
    (group,) = core_groups(graph)
    ranges, correction = ranges_of_kind("relu"), np.full(WIDTH, 0.5, np.float32)
    wanted = quantize(graph, [group], replace(ranges, bias_correction={group.name: correction}))
    first = next(node for node in graph.nodes if node.op_type == "Conv")
    new = {group.inputs[0]: "block", first.input[1]: "block/scale", group.name: "next", first.input[2]: "next/bias"}
    renamed = Graph(with_names(quantizable("relu"), new))
    (group,) = core_groups(renamed)
    amax = {new.get(name, name): value for name, value in ranges.amax.items()}
    found = quantize(renamed, [group], Ranges(amax, bias_correction={"next": correction}))
    assert {"block/scale", "next/bias"} <= set(initializers(found))
    assert np.array_equal(exactly(scores_of(found), SCORES, images()), exactly(scores_of(wanted), SCORES, images()))


def with_names(content: bytes, new: Mapping[str, str]) -> bytes:
    model = onnx.load_from_string(content)
    for node in model.graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
    for tensor in model.graph.initializer:
        tensor.name = new.get(tensor.name, tensor.name)
    renamed: bytes = model.SerializeToString()
    return renamed
