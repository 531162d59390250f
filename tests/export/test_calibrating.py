"""A table that changes with the order of frames, or with the run, cannot be reproduced by anyone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.export.models import write_wide_model
from tests.export.quantizable import WIDTH, Drawing, core_groups
from tests.export.quantizable import images as pictures
from vidseg.calibration.table import table_json
from vidseg.export.calibrating import bias_corrections, calibrate, some_of
from vidseg.export.equalize import equalized, find_sites
from vidseg.export.exporter import ExportRequest, export_model
from vidseg.export.graph import Graph
from vidseg.export.groups import find_groups
from vidseg.export.int8 import candidates_among
from vidseg.export.runner import GraphRunner
from vidseg.runtime.bundle import open_bundle
from vidseg.runtime.engines.onnxruntime import OnnxRuntimeEngine
from vidseg.runtime.frame import Image
from vidseg.runtime.sources.street.render import Street

SIZE_WH = (96, 64)
RUNNER = GraphRunner("wide", "onnxruntime")


@dataclass(frozen=True)
class _Frames:
    calibration: list[Image]
    calibration_sha256: str = "0" * 64


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    folder = tmp_path_factory.mktemp("calibrating")
    (folder / "names.txt").write_text("a\nb\nc\nd\n")
    model = write_wide_model(folder / "model.onnx", SIZE_WH)
    export_model(ExportRequest(model=model, out=folder / "m.vidseg", labels=str(folder / "names.txt")))
    return Graph(open_bundle(folder / "m.vidseg").members["model.onnx"])


@pytest.fixture(scope="module")
def images() -> list[Image]:
    street = Street(4, SIZE_WH)
    return [street.render(number, number * 3.0)[0] for number in range(10)]


def _table(graph: Graph, images: list[Image]) -> bytes:
    groups = candidates_among(find_groups(graph))
    return table_json(calibrate(RUNNER, graph, groups, _Frames(images), lambda: None))  # type: ignore[arg-type]


def test_the_order_of_frames_does_not_change_a_table(graph: Graph, images: list[Image]) -> None:
    wanted = _table(graph, images)
    assert _table(graph, images[::-1]) == wanted
    assert _table(graph, images[5:] + images[:5]) == wanted
    assert _table(graph, images[:9]) != wanted


@given(order=st.permutations(range(6)), count=st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_some_frames_are_the_same_in_any_order(order: list[int], count: int) -> None:
    pictures = [np.full((2, 2, 3), number, np.uint8) for number in range(6)]
    wanted = [int(image[0, 0, 0]) for image in some_of(pictures, count)]
    assert [int(image[0, 0, 0]) for image in some_of([pictures[number] for number in order], count)] == wanted


def test_equalizing_changes_no_result(graph: Graph, images: list[Image]) -> None:
    rng = np.random.default_rng(6)
    sites = find_sites(graph)
    assert sites
    factors = {site.tensor: rng.uniform(0.1, 3, graph.shape(site.tensor)[1]).astype(np.float32) for site in sites}
    changed = equalized(graph, factors)
    with OnnxRuntimeEngine(graph.serialized()) as before, OnnxRuntimeEngine(changed.serialized()) as after:
        for image in images[:3]:
            results = [engine.enqueue(image[None]).result()["class_map"] for engine in (before, after)]
            assert np.mean(results[0] == results[1]) > 0.9999
    assert graph.serialized() != changed.serialized()


def test_a_bias_correction_is_kept_only_where_it_helps_on_other_frames(graph: Graph, images: list[Image]) -> None:
    groups = candidates_among(find_groups(graph))
    amax = {tensor: 1.0 for group in groups for tensor in group.inputs}  # clips: the means move

    def corrected(frames: list[Image]) -> dict[str, NDArray[np.float32]]:
        return bias_corrections(RUNNER, graph, groups, amax, frames, weight_qmax=63)

    assert corrected(images)
    assert set(corrected(images)) <= {group.name for group in groups}
    assert corrected(images[:1]) == {}
    dark = [np.zeros_like(image) for image in images]
    turns = [frame for pair in zip(images, dark, strict=True) for frame in pair]
    assert len(corrected(turns)) < len(corrected(images))  # measured on bright frames, judged on dark ones


def test_equalization_is_kept_where_it_helps_also_behind_another_site() -> None:
    """Depthwise convolutions in a row, as in MobileNet, with channels of very different ranges; the last are alike."""
    rng = np.random.default_rng(0)
    draw = Drawing()
    spread = np.geomspace(1, 1 / 64, WIDTH).reshape(-1, 1, 1, 1)

    def depthwise(data: str, ranges: NDArray[np.float64]) -> str:
        weight = draw.weight((np.abs(rng.normal(0, 0.3, (WIDTH, 1, 3, 3))) * ranges).astype(np.float32))
        conv = draw.node("Conv", [data, weight], group=WIDTH, pads=[1] * 4)
        return draw.node("Relu", [conv])

    first = draw.node("Conv", [draw.stem(), draw.random(WIDTH, WIDTH, 1, 1)])
    second = depthwise(draw.node("Relu", [first]), spread)
    third = depthwise(second, 1 / spread)
    graph = Graph(draw.finished(depthwise(third, np.ones_like(spread))))
    frames = pictures(8)
    table = calibrate(RUNNER, graph, core_groups(graph), _Frames(frames), lambda: None)  # type: ignore[arg-type]
    sites = {site.tensor for site in find_sites(graph)}
    assert second in table.equalization
    assert set(table.equalization) < sites  # where all channels are alike there is nothing to gain


def test_a_range_leaves_out_what_one_pixel_does() -> None:
    draw = Drawing()
    data = draw.node("Relu", [draw.node("Conv", [draw.stem(), draw.random(WIDTH, WIDTH, 1, 1)])])
    graph = Graph(draw.finished(draw.node("Conv", [data, draw.random(WIDTH, WIDTH, 1, 1)])))
    frames = [frame // 64 for frame in pictures(8)]
    for frame in frames:
        frame[3, 3] = 255
    table = calibrate(RUNNER, graph, core_groups(graph), _Frames(frames), lambda: None)  # type: ignore[arg-type]
    found = table.tensors[data]
    assert found.method != "max"
    assert found.chosen < found.amax["max"]
