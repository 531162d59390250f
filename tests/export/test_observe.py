"""Ranges are taken from what these graphs give: another channel, another pixel or a lost frame, and they are wrong."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.export.quantizable import (
    KINDS,
    SCORES,
    SIZE_WH,
    WIDTH,
    images,
    quantizable,
    run,
)
from vidseg.calibration.observers import magnitude_counts
from vidseg.calibration.ranges import candidate_ranges
from vidseg.export.graph import Graph
from vidseg.export.groups import find_groups
from vidseg.export.observe import HIGH, LOW, SAMPLE, with_extremes, with_outputs, with_samples
from vidseg.export.runner import GraphRunner, extremes_of, histograms_of, watched_tensors
from vidseg.runtime.engines.opening import EngineName

ENGINES: tuple[EngineName, ...] = ("onnxruntime", "openvino")


def watched(kind: str) -> tuple[Graph, list[str]]:
    graph = Graph(quantizable(kind))
    return graph, watched_tensors(find_groups(graph))


def activations(kind: str) -> dict[str, NDArray[np.float32]]:
    """Each one whole, (frames, 1, ...)."""
    graph, tensors = watched(kind)
    return {tensor: run(with_outputs(graph, [tensor]), tensor, images()) for tensor in tensors}


@pytest.mark.parametrize("kind", KINDS)
def test_extremes_are_those_of_each_channel_of_the_activation(kind: str) -> None:
    graph, tensors = watched(kind)
    content = with_extremes(graph, tensors)
    for tensor, values in activations(kind).items():
        channel = 2 if values.ndim == 5 else values.ndim - 1
        others = tuple(axis for axis in range(1, values.ndim) if axis != channel)
        # Engines fuse what nobody watches, which changes last bits.
        close = 1e-5 * float(np.abs(values).max())
        assert np.allclose(run(content, tensor + LOW, images()), values.min(axis=others), rtol=0, atol=close)
        assert np.allclose(run(content, tensor + HIGH, images()), values.max(axis=others), rtol=0, atol=close)


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


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kind", ["relu", "matmul", "gemm"])
def test_a_sample_is_every_so_many_rows_and_columns_of_a_picture_and_all_of_the_rest(kind: str, stride: int) -> None:
    graph, tensors = watched(kind)
    content = with_samples(graph, tensors, stride)
    for tensor, values in activations(kind).items():
        expected = values[..., ::stride, ::stride] if values.ndim == 5 else values
        found = run(content, tensor + SAMPLE, images())
        assert found.shape == expected.shape
        assert np.allclose(found, expected, rtol=0, atol=1e-5 * float(np.abs(values).max()))


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
