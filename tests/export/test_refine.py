"""A range's method and a bias's correction are chosen by these figures: a wrong one loses what it should save."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from tests.export.quantizable import (
    KINDS,
    core_groups,
    exactly,
    images,
    noise_share,
    quantizable,
    ranges_of_kind,
    run,
)
from vidseg.export.graph import Graph
from vidseg.export.groups import FusionGroup
from vidseg.export.observe import with_outputs
from vidseg.export.qdq import MASTER, QuantizedForm, Ranges, quantize
from vidseg.export.refine import ERROR, MEAN, POWER, error_name, with_group_errors, with_range_errors

SHARES = (1.0, 0.5, 0.1)
FLOAT_WEIGHTS = QuantizedForm(weight_qmax=127)


def weighted(kind: str) -> tuple[Graph, list[FusionGroup]]:
    graph = Graph(quantizable(kind))
    return graph, [group for group in core_groups(graph) if group.weight is not None]


def output_of(content: bytes, group: FusionGroup) -> NDArray[np.float64]:
    return run(with_outputs(Graph(content), [group.name]), group.name, images()).astype(np.float64)


def by_channel(values: NDArray[np.float64], kind: str) -> NDArray[np.float64]:
    """(frames, pixels, channels)."""
    channel = 2 if values.ndim == 5 or kind == "matmul left" else -1
    return np.moveaxis(values, channel, -1).reshape(len(values), -1, values.shape[channel])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "product"])
def test_the_error_of_a_range_is_what_rounding_the_input_does_behind_the_group(kind: str) -> None:
    graph, groups = weighted(kind)
    amax = ranges_of_kind(kind).amax
    candidates = {tensor: [amax[tensor] * share for share in SHARES] for group in groups for tensor in group.inputs}
    content = with_range_errors(graph, groups, candidates)
    for group in groups:
        node = graph.producer(group.name)
        assert node is not None
        bias = node.input[2] if len(node.input) > 2 else None
        inputs = run(with_outputs(graph, [group.inputs[0]]), group.inputs[0], images())
        for number, top in enumerate(candidates[group.inputs[0]]):
            scale = np.float32(top / 127)
            rounded = np.clip(np.rint(inputs / scale), -127, 127) * scale
            difference = applied(graph, group, rounded - inputs, bias)
            expected = (difference.astype(np.float64) ** 2).reshape(len(inputs), -1).sum(axis=1)
            found = run(content, error_name(group, 0, number), images())
            assert np.allclose(found.ravel(), expected, rtol=2e-2)
        power = (applied(graph, group, inputs, bias).astype(np.float64) ** 2).reshape(len(inputs), -1).sum(axis=1)
        assert np.allclose(run(content, group.name + POWER, images()).ravel(), power, rtol=1e-3)


def applied(graph: Graph, group: FusionGroup, inputs: NDArray[np.float32], bias: str | None) -> NDArray[np.float32]:
    """The group's node by itself, without its bias."""
    node = onnx.NodeProto()
    node.CopyFrom(graph.producer(group.name))
    if bias is not None:
        del node.input[2:]
    weight = onnx.numpy_helper.from_array(graph.weight(str(group.weight)), str(group.weight))
    model = helper.make_model(
        helper.make_graph(
            [node],
            "one",
            [helper.make_tensor_value_info(group.inputs[0], TensorProto.FLOAT, list(inputs.shape[1:]))],
            [helper.make_tensor_value_info(group.name, TensorProto.FLOAT, None)],
            [weight],
        ),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.stack([session.run(None, {group.inputs[0]: values})[0] for values in inputs])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "product"])
def test_the_error_of_a_group_is_that_of_the_graph_in_which_it_alone_is_quantized(kind: str) -> None:
    graph, groups = weighted(kind)
    ranges = Ranges(ranges_of_kind(kind).amax)
    content = with_group_errors(graph, groups, ranges.amax, MASTER.weight_qmax)
    for group in groups:
        alone = with_outputs(Graph(quantize(graph, [group], ranges, FLOAT_WEIGHTS)), [group.name])
        difference = output_of(graph.serialized(), group) - exactly_of(alone, group)
        mean = run(content, group.name + MEAN, images())
        assert np.allclose(mean, by_channel(difference, kind).mean(axis=1), atol=1e-4 * np.abs(difference).max() + 1e-6)
        squares = run(content, group.name + ERROR, images()).ravel()
        assert np.allclose(squares, (difference**2).reshape(len(difference), -1).sum(axis=1), rtol=2e-2)


def exactly_of(content: bytes, group: FusionGroup) -> NDArray[np.float64]:
    return exactly(content, group.name, images()).astype(np.float64)


def test_a_shift_that_was_measured_takes_the_mean_error_away() -> None:
    graph, groups = weighted("signed")
    ranges = Ranges(ranges_of_kind("signed").amax)
    group = groups[0]
    means = run(with_group_errors(graph, [group], ranges.amax, 127), group.name + MEAN, images())
    correction = means.mean(axis=0).astype(np.float32)
    wanted = output_of(graph.serialized(), group)
    errors = []
    for corrections in ({}, {group.name: correction}):
        content = quantize(graph, [group], Ranges(ranges.amax, bias_correction=corrections))
        found = exactly_of(with_outputs(Graph(content), [group.name]), group)
        errors.append(np.abs(by_channel(found - wanted, "signed").mean(axis=(0, 1))).max())
    assert errors[1] < 0.02 * errors[0]


def test_the_graph_beside_is_not_changed_by_measuring() -> None:
    graph, groups = weighted("residual")
    before = graph.model.SerializeToString(deterministic=True)
    amax = ranges_of_kind("residual").amax
    values = {tensor: [value] for tensor, value in amax.items()}
    first = with_range_errors(graph, groups, values), with_group_errors(graph, groups, amax, 63)
    assert graph.model.SerializeToString(deterministic=True) == before
    assert (with_range_errors(graph, groups, values), with_group_errors(graph, groups, amax, 63)) == first


def test_products_of_two_activations_have_an_error_for_each_of_both() -> None:
    graph = Graph(quantizable("product"))
    groups = [group for group in core_groups(graph) if group.weight is None]
    amax = ranges_of_kind("product").amax
    candidates = {tensor: [amax[tensor], amax[tensor] / 64] for group in groups for tensor in group.inputs}
    content = with_range_errors(graph, groups, candidates)
    for group in groups:
        for position in range(2):
            fine, clipped = (run(content, error_name(group, position, number), images()) for number in range(2))
            power = run(content, group.name + POWER, images())
            assert (fine < 0.01 * power).all()
            assert (clipped > 2 * fine).all()


def test_noise_is_measured_against_the_signal() -> None:
    one = np.array([3.0, 4.0])
    assert noise_share(one * 2, one) == pytest.approx(1)
