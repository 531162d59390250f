"""A table that changes with the order of frames, or with the run, cannot be reproduced by anyone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.export.models import write_wide_model
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
    corrections = bias_corrections(RUNNER, graph, groups, amax, images, weight_qmax=63)
    assert corrections
    assert set(corrections) <= {group.name for group in groups}
    assert bias_corrections(RUNNER, graph, groups, amax, images[:1], weight_qmax=63) == {}
