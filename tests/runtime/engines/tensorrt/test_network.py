"""What a user sets must reach TensorRT: weakly typed on a stand-in, strongly typed on TensorRT-RTX itself."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from typing import Any

import pytest

from tests.runtime.engines.tensorrt.graphs import SIZE_WH, graph, refused_graph
from vidseg.runtime.engines.tensorrt.library import Library, load_library
from vidseg.runtime.engines.tensorrt.lowering import Ranges
from vidseg.runtime.engines.tensorrt.network import build_network
from vidseg.runtime.engines.tensorrt.request import BuildRequest, NetworkError
from vidseg.runtime.engines.tensorrt.settings import BuildSettings

WEAK = "tests.runtime.engines.tensorrt.weak_tensorrt"
RTX = "tensorrt_rtx_bindings"
needs_rtx = pytest.mark.skipif(importlib.util.find_spec(RTX) is None, reason='pip install "vidseg[rtx]"')


@pytest.fixture(scope="module")
def weak() -> Library:
    return load_library(WEAK)


def _request(module: str = WEAK, **values: Any) -> BuildRequest:
    given = {
        "settings": BuildSettings(), "typing": "weak" if module == WEAK else "strong", "flags": (), "ranges": None,
        "outputs": ("class_map",), "compute_capability": (8, 6),
    }  # fmt: skip
    return BuildRequest(module=module, **(given | values))


def _built(library: Library, model: bytes, request: BuildRequest, timing: bytes = b"") -> dict[str, Any]:
    plan = build_network(library, model, request, timing, lambda _share: None).plan
    found: dict[str, Any] = json.loads(bytes(plan))
    return found


def test_the_stand_in_can_what_a_weakly_typed_release_can(weak: Library) -> None:
    abilities = weak.abilities
    assert (abilities.weakly_typed, abilities.ranges, abilities.version_compatible) == (True, True, True)
    assert (abilities.strongly_typed, abilities.progress, abilities.ahead_of_time) == (False, False, False)


def test_without_settings_nothing_is_set_but_what_the_engine_needs(weak: Library) -> None:
    found = _built(weak, graph(), _request())
    assert (found["flags"], found["pools"], found["sources"], found["level"]) == ([], {}, 7, 3)
    assert (found["device"], found["aux_streams"], found["compatible"]) == ("GPU", 0, "NONE")


@pytest.mark.parametrize(
    ("settings", "field", "value"),
    [
        (BuildSettings(workspace_mib=512), "pools", {"WORKSPACE": 512 << 20}),
        (BuildSettings(tactic_sources=("CUDNN", "CUBLAS")), "sources", 0b101),
        (BuildSettings(tactic_sources=()), "sources", 0),
        (BuildSettings(optimization_level=5), "level", 5),
        (BuildSettings(version_compatible=True), "flags", ["VERSION_COMPATIBLE"]),
        (BuildSettings(hardware_compatible=True), "compatible", "AMPERE_PLUS"),
        (BuildSettings(refit=True), "flags", ["REFIT"]),
        (BuildSettings(dla_core=1), "device", "DLA"),
        (BuildSettings(dla_core=1), "core", 1),
        (BuildSettings(dla_core=1), "flags", ["GPU_FALLBACK"]),
    ],
)
def test_each_setting_reaches_the_builder(weak: Library, settings: BuildSettings, field: str, value: object) -> None:
    assert _built(weak, graph(), _request(settings=settings))[field] == value


def test_flags_of_the_lowering_are_set_by_name(weak: Library) -> None:
    assert _built(weak, graph(), _request(flags=("INT8", "FP16")))["flags"] == ["FP16", "INT8"]


@pytest.mark.parametrize("max_batch", [1, 4])
def test_a_free_batch_takes_all_from_one_to_the_largest(weak: Library, max_batch: int) -> None:
    found = _built(weak, graph("batch"), _request(settings=BuildSettings(max_batch=max_batch)))
    rest = [*SIZE_WH[::-1], 3]
    assert found["profiles"] == [["image", [1, *rest], [max_batch, *rest], [max_batch, *rest]]]


def test_a_fixed_batch_is_the_only_one(weak: Library) -> None:
    assert _built(weak, graph(), _request())["profiles"] == []
    with pytest.raises(NetworkError, match=r"no batch of 4.*its batch is 1.*Export the bundle again"):
        _built(weak, graph(), _request(settings=BuildSettings(max_batch=4)))


def test_only_the_wanted_outputs_are_computed(weak: Library) -> None:
    model = graph(outputs=2)
    assert _built(weak, model, _request())["outputs"] == ["class_map"]
    both = ("class_map", "confidence")
    assert _built(weak, model, _request(outputs=both))["outputs"] == list(both)
    with pytest.raises(NetworkError, match="does not give `confidence`"):
        _built(weak, graph(), _request(outputs=both))


def test_ranges_are_set_by_name_and_what_lacks_one_stays_in_half_precision(weak: Library) -> None:
    flags = ("INT8", "FP16", "PREFER_PRECISION_CONSTRAINTS")

    def built(in_float: tuple[str, ...], **ranges: float) -> dict[str, Any]:
        given = Ranges(format=1, ranges=ranges, in_float=in_float)
        return _built(weak, graph(), _request(flags=flags, ranges=given))

    found = built((), cast=2.5, planes=2.5, scores=9.0, elsewhere=1.0)
    assert found["ranges"] == {"cast": [-2.5, 2.5], "planes": [-2.5, 2.5], "scores": [-9.0, 9.0]}
    assert found["half"] == []  # casts from and to other types keep the types that they are for
    assert built(("scores",), cast=2.5, planes=2.5, scores=9.0)["half"] == ["scores"]
    assert built((), planes=2.5)["half"] == ["planes", "scores"]


def test_the_timing_cache_goes_on_and_anothers_is_dropped(weak: Library) -> None:
    def built(timing: bytes) -> tuple[str, bytes]:
        made = build_network(weak, graph(), _request(), timing, lambda _share: None)
        return json.loads(made.plan)["timing"], made.timing

    assert built(b"8.6.1: kept") == ("8.6.1: kept", b"8.6.1: kept")
    assert built(b"10.3.0: kept") == ("", b"8.6.1: timed")


@pytest.mark.parametrize(
    ("model", "request_", "line"),
    [
        (refused_graph(), _request(), r"refuses the graph.*node 7: Assertion failed.*; 1 more"),
        (b"junk", _request(), "the graph is damaged"),
        (
            graph(),
            _request(settings=BuildSettings(tactic_sources=("CUBLAS", "MAGIC"))),
            r"no such tactic source.*MAGIC.*CUBLAS, CUBLAS_LT, CUDNN",
        ),
        (graph(), _request(settings=BuildSettings(dla_core=2)), r"no DLA core 2.*this device has 2"),
        (graph(scores="too_large"), _request(), r"ran out of memory.*OutOfMemory.*--workspace"),
    ],
)
def test_what_tensorrt_refuses_says_why_and_what_to_do(
    weak: Library, model: bytes, request_: BuildRequest, line: str
) -> None:
    with pytest.raises(NetworkError, match=line):
        _built(weak, model, request_)


@pytest.mark.parametrize(
    ("removed", "settings", "what"),
    [
        ("optimization_level", BuildSettings(optimization_level=2), "optimization levels"),
        ("version_compatible", BuildSettings(version_compatible=True), "version-compatible plans"),
        ("hardware_compatible", BuildSettings(hardware_compatible=True), "hardware-compatible plans"),
    ],
)
def test_a_setting_that_a_release_does_not_know_is_refused(
    weak: Library, removed: str, settings: BuildSettings, what: str
) -> None:
    older = replace(weak, abilities=replace(weak.abilities, **{removed: False}))
    with pytest.raises(NetworkError, match=f"does not know {what}"):
        _built(older, graph(), _request(settings=settings))


@needs_rtx
def test_rtx_names_the_node_that_it_refuses() -> None:
    with pytest.raises(NetworkError, match="MaxPool `pool_with_indices`: This version of TensorRT"):
        build_network(load_library(RTX), refused_graph(), _request(RTX), b"", lambda _share: None)


@needs_rtx
def test_rtx_refuses_a_gpu_that_it_does_not_build_for() -> None:
    with pytest.raises(NetworkError, match=r"compute capability 9\.0; it knows 75, 80"):
        build_network(load_library(RTX), graph(), _request(RTX, compute_capability=(9, 0)), b"", lambda _share: None)


@needs_rtx
def test_a_version_compatible_plan_needs_what_pip_does_not_bring() -> None:
    request = _request(RTX, settings=BuildSettings(version_compatible=True))
    with pytest.raises(NetworkError, match=r"lean runtime inside.*libnvinfer_lean.*leave out --version-compatible"):
        build_network(load_library(RTX), graph(), request, b"", lambda _share: None)


@needs_rtx
@pytest.mark.parametrize("form", [{}, {"half": True}, {"quantized": True}])
def test_rtx_builds_a_graph_of_each_precision_with_a_free_batch(form: dict[str, Any]) -> None:
    shares: list[float] = []
    settings = BuildSettings(max_batch=4, workspace_mib=256, optimization_level=1)
    built = build_network(
        load_library(RTX), graph("batch", outputs=2, **form), _request(RTX, settings=settings), b"", shares.append
    )
    assert len(bytes(built.plan)) > 1000
    assert built.timing == b""
    assert all(0 <= share <= 1 for share in shares)
    assert max(shares) > 0.7
