"""Ranges are taken from what these graphs give: another channel, another pixel or a lost frame, and they are wrong."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from tests.export.quantizable import (
    KINDS,
    SCORES,
    SIZE_WH,
    WIDTH,
    Drawing,
    images,
    quantizable,
    run,
)
from vidseg.calibration.observers import magnitude_counts
from vidseg.calibration.ranges import candidate_ranges
from vidseg.export import runner as runner_module
from vidseg.export.graph import Graph
from vidseg.export.groups import find_groups
from vidseg.export.observe import HIGH, LOW, SAMPLE, channel_axis_of, with_extremes, with_outputs, with_samples
from vidseg.export.runner import GraphRunner, extremes_of, histograms_of, watched_tensors
from vidseg.runtime.engines.opening import EngineName

ENGINES: tuple[EngineName, ...] = ("onnxruntime", "openvino")


HEADS = 4


def _back_to_planes(draw: Drawing, tokens: str) -> str:
    return draw.node("Transpose", [tokens], perm=[0, 3, 1, 2])


def _channels_last(draw: Drawing) -> str:
    """A layer as in ConvNeXt or Swin: products on (1, h, w, c), an activation between them, a skip around them."""
    last = draw.node("Transpose", [draw.stem()], perm=[0, 2, 3, 1])
    wide = draw.node("Relu", [draw.node("MatMul", [last, draw.random(WIDTH, 2 * WIDTH)])])
    return _back_to_planes(draw, draw.node("Add", [draw.node("MatMul", [wide, draw.random(2 * WIDTH, WIDTH)]), last]))


def _attention(draw: Drawing) -> str:
    """Heads of tokens, (1, heads, tokens, c), multiplied with each other."""
    width, height = SIZE_WH[0] // 4, SIZE_WH[1] // 4
    shapes = [
        draw.weight(np.array(shape, np.int64))
        for shape in ([1, HEADS, WIDTH // HEADS, width * height], [1, WIDTH, height, width])
    ]
    small = draw.conv(draw.stem(), (WIDTH, WIDTH, 1, 1), strides=[4, 4])
    turned = draw.node("Reshape", [small, shapes[0]])
    heads = draw.node("Transpose", [turned], perm=[0, 1, 3, 2])
    scale = draw.weight(np.array(0.01, np.float32))
    mixed = draw.node("MatMul", [draw.node("Mul", [draw.node("MatMul", [heads, turned]), scale]), heads])
    planes = draw.node("Reshape", [draw.node("Transpose", [mixed], perm=[0, 1, 3, 2]), shapes[1]])
    return draw.node("ConvTranspose", [planes, draw.random(WIDTH, WIDTH, 4, 4)], strides=[4, 4])


MORE: dict[str, Callable[[Drawing], str]] = {"channels last": _channels_last, "attention": _attention}
GRAPHS = ["relu", "residual", "matmul", "matmul left", "gemm", *MORE]


def is_channels_last(kind: str, values: NDArray[np.float32]) -> bool:
    return kind == "channels last" and values.shape[2:4] == SIZE_WH[::-1]


def channel_of(kind: str, values: NDArray[np.float32]) -> int:
    """The axis of channels of an activation, (frames, 1, ...), as the graph was drawn."""
    is_second = values.ndim == 5 and not is_channels_last(kind, values)
    return 2 if is_second or kind == "matmul left" else values.ndim - 1


def sampled(kind: str, values: NDArray[np.float32], stride: int) -> NDArray[np.float32]:
    """Some positions of an activation, (frames, 1, ...), as the graph was drawn."""
    thin = max(stride**2 // 4, 1)
    has_heads = kind == "attention" and values.shape[2] == HEADS
    if is_channels_last(kind, values):
        return values[:, :, ::stride, ::stride]
    if values.ndim == 5 and not has_heads:
        return values[..., ::stride, ::stride]
    keys = has_heads and values.shape[3] == WIDTH // HEADS
    return values[..., ::thin] if keys or kind == "matmul left" else values[..., ::thin, :]


@cache
def content_of(kind: str) -> bytes:
    """Of the shared kinds, or of those of this file."""
    draw = Drawing()
    return draw.finished(MORE[kind](draw)) if kind in MORE else quantizable(kind)


def watched(kind: str) -> tuple[Graph, list[str]]:
    graph = Graph(content_of(kind))
    return graph, watched_tensors(find_groups(graph))


def activations(kind: str) -> dict[str, NDArray[np.float32]]:
    """Each one whole, (frames, 1, ...)."""
    graph, tensors = watched(kind)
    return {tensor: run(with_outputs(graph, [tensor]), tensor, images()) for tensor in tensors}


@pytest.mark.parametrize("kind", [*KINDS, "channels last"])
def test_extremes_are_those_of_each_channel_of_the_activation(kind: str) -> None:
    graph, tensors = watched(kind)
    content = with_extremes(graph, tensors)
    for tensor, values in activations(kind).items():
        others = tuple(axis for axis in range(1, values.ndim) if axis != channel_of(kind, values))
        # Engines fuse what nobody watches, which changes last bits.
        close = 1e-5 * float(np.abs(values).max())
        assert np.allclose(run(content, tensor + LOW, images()), values.min(axis=others), rtol=0, atol=close)
        assert np.allclose(run(content, tensor + HIGH, images()), values.max(axis=others), rtol=0, atol=close)


@pytest.mark.parametrize(
    ("rank", "operator", "wanted"),
    [
        *[(rank, operator, 1) for rank in (3, 4, 5) for operator in ("Conv", "ConvTranspose")],
        *[(rank, "MatMul", rank - 1) for rank in (2, 3, 4, 5)],
        (2, "Gemm", 1),
    ],
)
def test_channels_are_where_the_nearest_operator_with_a_weight_has_them(rank: int, operator: str, wanted: int) -> None:
    """Through what is computed element by element, before and behind."""
    kernel = [WIDTH, WIDTH, *[1] * (rank - 2)] if operator.startswith("Conv") else [WIDTH, WIDTH]
    nodes = [
        helper.make_node("Transpose", ["x"], ["before"], perm=[0, *range(rank - 1, 0, -1)] if rank > 2 else [0, 1]),
        helper.make_node("Sigmoid", ["before"], ["gate"]),
        helper.make_node("Mul", ["before", "gate"], ["read"]),
        helper.make_node(operator, ["read", "weight"], ["made"]),
        helper.make_node("Relu", ["made"], ["active"]),
        helper.make_node("Add", ["active", "other"], ["sum"]),
        helper.make_node("Exp", ["sum"], ["y"]),
    ]
    weight = onnx.numpy_helper.from_array(np.ones(kernel, np.float32), "weight")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, *[WIDTH] * (rank - 1)]) for name in "xy"]
    other = helper.make_tensor_value_info("other", TensorProto.FLOAT, [1, *[WIDTH] * (rank - 1)])
    body = helper.make_graph(nodes, "g", [values[0], other], [values[1]], [weight])
    graph = Graph(helper.make_model(body, opset_imports=[helper.make_opsetid("", 13)]).SerializeToString())
    for tensor in ("before", "gate", "read", "made", "active", "other", "sum"):
        assert channel_axis_of(graph, tensor) == wanted, tensor
    assert channel_axis_of(graph, "y") == (1 if rank == 4 else rank - 1)  # nothing is known


def test_what_is_of_another_shape_says_nothing_about_channels() -> None:
    """As the gate of squeeze and excite, which a product makes for each channel of a picture."""
    nodes = [
        helper.make_node("Gemm", ["gate", "weight"], ["gemm"]),
        helper.make_node("Mul", ["x", "gemm"], ["y"]),
    ]
    weights = [onnx.numpy_helper.from_array(np.eye(WIDTH, dtype=np.float32), "weight")]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, WIDTH, 4, WIDTH]) for name in "xy"]
    gate = helper.make_tensor_value_info("gate", TensorProto.FLOAT, [1, WIDTH])
    body = helper.make_graph(nodes, "g", [values[0], gate], [values[1]], weights)
    graph = Graph(helper.make_model(body, opset_imports=[helper.make_opsetid("", 13)]).SerializeToString())
    assert channel_axis_of(graph, "x") == channel_axis_of(graph, "y") == 1
    assert channel_axis_of(graph, "gemm") == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_both_engines_see_the_same_extremes(engine: EngineName) -> None:
    graph, tensors = watched("residual")
    found = extremes_of(GraphRunner("test", engine), graph, tensors, images())
    for tensor, values in activations("residual").items():
        assert found[tensor].amax == pytest.approx(float(np.abs(values).max()), rel=1e-4)
        assert found[tensor].low.shape == (values.shape[2],)
        assert found[tensor].signed == bool((values < 0).any())


def test_only_what_is_asked_for_is_given() -> None:
    graph, tensors = watched("relu")
    outputs = Graph(with_extremes(graph, tensors[:1], keep=("class_map",))).outputs
    assert outputs == ["class_map", tensors[0] + LOW, tensors[0] + HIGH]
    assert Graph(with_extremes(graph, tensors[:1])).outputs == [tensors[0] + LOW, tensors[0] + HIGH]


def test_outputs_come_beside_the_graphs_own_and_once() -> None:
    graph, _ = watched("relu")
    once = with_outputs(graph, [SCORES])
    assert Graph(once).outputs == ["class_map", SCORES]
    again = with_outputs(Graph(once), [SCORES])
    assert Graph(again).outputs == ["class_map", SCORES]
    assert np.array_equal(run(again, "class_map", images()), run(quantizable("relu"), "class_map", images()))


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("stride", [1, 2, 3, 4, 5])
def test_a_sample_leaves_out_positions_and_never_channels_or_heads(kind: str, stride: int) -> None:
    graph, tensors = watched(kind)
    content = with_samples(graph, tensors, stride)
    for tensor, values in activations(kind).items():
        expected = sampled(kind, values, stride)
        found = run(content, tensor + SAMPLE, images())
        assert found.shape == expected.shape
        assert np.allclose(found, expected, rtol=0, atol=1e-5 * float(np.abs(values).max()))


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("most", [1 << 20, 40_000, 5_000])
def test_what_is_handed_over_of_a_frame_stays_within_its_limit(
    kind: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transformer's tokens would fill the memory of the engine's machine."""
    monkeypatch.setattr(runner_module, "MAX_SAMPLE_BYTES", most)
    graph, tensors = watched(kind)
    runner = GraphRunner("test", "onnxruntime")
    extremes = extremes_of(runner, graph, tensors, images())
    histograms = histograms_of(runner, graph, extremes, images())
    per_frame = sum(int(histogram.counts.sum()) for histogram in histograms.values()) / len(images())
    assert 0 < 4 * per_frame <= most


def test_a_limit_that_cannot_be_kept_ends_the_search_for_a_stride(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "MAX_SAMPLE_BYTES", 1)
    graph, tensors = watched("gemm")
    runner = GraphRunner("test", "onnxruntime")
    extremes = extremes_of(runner, graph, tensors, images())
    histograms = histograms_of(runner, graph, extremes, images())
    assert all(histogram.counts.sum() for tensor, histogram in histograms.items() if extremes[tensor].amax)


@pytest.mark.parametrize("kind", ["relu", "product"])
def test_the_graph_that_is_watched_stays_as_it_is(kind: str) -> None:
    graph, tensors = watched(kind)
    before = graph.model.SerializeToString(deterministic=True)
    contents = [with_extremes(graph, tensors), with_samples(graph, tensors, 2), with_outputs(graph, tensors)]
    assert graph.model.SerializeToString(deterministic=True) == before
    again = [with_extremes(graph, tensors), with_samples(graph, tensors, 2), with_outputs(graph, tensors)]
    assert again == contents


@pytest.mark.parametrize("kind", ["residual", "matmul"])
def test_the_order_of_frames_changes_neither_extremes_nor_histograms_nor_ranges(kind: str) -> None:
    graph, tensors = watched(kind)
    runner = GraphRunner("test", "onnxruntime")
    frames = images(5)
    found = []
    for order in (frames, frames[::-1], frames[2:] + frames[:2]):
        extremes = extremes_of(runner, graph, tensors, order)
        histograms = histograms_of(runner, graph, extremes, order)
        found.append((extremes, histograms))
    (extremes, histograms), *others = found
    for other_extremes, other_histograms in others:
        for tensor in tensors:
            assert np.array_equal(extremes[tensor].low, other_extremes[tensor].low)
            assert np.array_equal(extremes[tensor].high, other_extremes[tensor].high)
            assert np.array_equal(histograms[tensor].counts, other_histograms[tensor].counts)
            assert candidate_ranges(histograms[tensor]) == candidate_ranges(other_histograms[tensor])


def test_the_histogram_is_that_of_the_pixels_that_are_looked_at() -> None:
    graph, tensors = watched("residual")
    runner = GraphRunner("test", "onnxruntime")
    extremes = extremes_of(runner, graph, tensors, images())
    histograms = histograms_of(runner, graph, extremes, images())
    for tensor, values in activations("residual").items():
        looked_at = values[..., ::2, ::2]
        expected = magnitude_counts(looked_at, extremes[tensor].amax)
        moved = np.abs(np.cumsum(histograms[tensor].counts - expected)).max()
        assert histograms[tensor].counts.sum() == expected.sum() == looked_at.size
        assert moved <= 0.001 * looked_at.size  # last bits, at the edges of bins


def test_what_is_watched_is_what_groups_read_give_and_add() -> None:
    graph = Graph(quantizable("residual"))
    groups = find_groups(graph)
    tensors = watched_tensors(groups)
    assert tensors == sorted(set(tensors))
    for group in groups:
        assert {*group.inputs, group.result} <= set(tensors)
        assert group.skip is None or group.skip in tensors
    assert graph.shape(groups[1].inputs[0]) == [1, WIDTH, SIZE_WH[1], SIZE_WH[0]]
