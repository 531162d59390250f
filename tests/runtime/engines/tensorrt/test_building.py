"""A build takes minutes and gigabytes on a small board: however it ends, the user gets one line and no leftovers."""

from __future__ import annotations

import importlib.util
import json
import os
import select
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import gettempdir

import pytest

from tests.processes import children_running
from tests.runtime.engines.tensorrt.graphs import bundle_of, graph
from vidseg.runtime.bundle import open_bundle
from vidseg.runtime.engines.tensorrt import building, libcuda
from vidseg.runtime.engines.tensorrt.build_process import BuildOptions
from vidseg.runtime.engines.tensorrt.building import (
    Machine,
    build_plan,
    forget_settings,
    keep_settings,
    plan_key,
    plan_of,
    settings_of,
)
from vidseg.runtime.engines.tensorrt.device import DeviceFacts
from vidseg.runtime.engines.tensorrt.library import Abilities, load_library
from vidseg.runtime.engines.tensorrt.lowering import lowering_of
from vidseg.runtime.engines.tensorrt.plan_cache import PlanCache
from vidseg.runtime.engines.tensorrt.settings import BuildSettings
from vidseg.runtime.errors import EngineError
from vidseg.runtime.pipeline.opening import demo_bundle_path

ROOT = Path(__file__).parents[4]
DYING = "tests.runtime.engines.tensorrt.dying_tensorrt"
WEAK = "tests.runtime.engines.tensorrt.weak_tensorrt"
RTX = "tensorrt_rtx_bindings"
DEADLINE_S = 60
GPU = DeviceFacts(
    name="a GPU",
    uuid="GPU-0",
    compute_capability=(8, 6),
    driver="560.35, CUDA 12.6",
    memory_bytes=8 << 30,
    integrated=True,
)
FP32 = BuildSettings(precision="fp32")
needs_rtx = pytest.mark.skipif(importlib.util.find_spec(RTX) is None, reason='pip install "vidseg[rtx]"')
pytestmark = pytest.mark.timeout(DEADLINE_S)


@pytest.fixture(autouse=True)
def leftovers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], list[Path]]:
    """The folders of builds that are still there. Builds find the stand-ins of these tests."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return lambda: list(Path(gettempdir()).glob("vidseg-build-*"))


@pytest.mark.parametrize(
    ("ending", "line"),
    [
        ("SIGKILL", r"got it was killed, as the system does when it is out of memory\. End other programs"),
        ("SIGSEGV", r"got it crashed with SIGSEGV\. Try `vidseg doctor`"),
        ("MemoryError", r"got out of memory\. End other programs"),
        ("exit", r"got exit code 3, something that the library says\."),
    ],
)
def test_however_the_library_ends_its_process_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, leftovers: Callable[[], list[Path]], ending: str, line: str
) -> None:
    monkeypatch.setenv("BUILD_ENDS", ending)
    with pytest.raises(EngineError, match=rf"model\.vidseg \(float\): the build of its plan did not end well: {line}"):
        build_plan(bundle_of({"float": graph()}), FP32, Machine(load_library(DYING), GPU))
    assert leftovers() == []


def test_a_build_that_takes_too_long_is_stopped(
    monkeypatch: pytest.MonkeyPatch, leftovers: Callable[[], list[Path]]
) -> None:
    monkeypatch.setenv("BUILD_ENDS", "hang")
    with pytest.raises(EngineError, match=r"was stopped: got no plan after 0\.5 s"):
        build_plan(bundle_of({"float": graph()}), FP32, Machine(load_library(DYING), GPU), BuildOptions(timeout_s=0.5))
    assert (children_running("build_child"), leftovers()) == ([], [])


def test_no_room_for_temporary_files_is_an_error_that_names_their_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(EngineError, match=r"cannot be built in .*gone: got No such file.*TMPDIR names another folder"):
        build_plan(bundle_of({"float": graph()}), FP32, Machine(load_library(DYING), GPU))


def test_ctrl_c_ends_the_build(monkeypatch: pytest.MonkeyPatch, leftovers: Callable[[], list[Path]]) -> None:
    monkeypatch.setenv("BUILD_ENDS", "hang")
    seen = []

    def interrupted(share: float) -> None:
        if share:
            seen.append((share, len(children_running("build_child"))))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_plan(
            bundle_of({"float": graph()}), FP32, Machine(load_library(DYING), GPU), BuildOptions(progress=interrupted)
        )
    assert seen == [(0.5, 1)]
    assert (children_running("build_child"), leftovers()) == ([], [])


PARENT = """
from tests.runtime.engines.tensorrt.test_building import *
options = BuildOptions(progress=lambda share: share and print(*children_running("build_child"), flush=True))
build_plan(bundle_of({"float": graph()}), FP32, Machine(load_library(DYING), GPU), options)
"""


def test_a_build_does_not_outlive_whoever_started_it(
    monkeypatch: pytest.MonkeyPatch, leftovers: Callable[[], list[Path]]
) -> None:
    monkeypatch.setenv("BUILD_ENDS", "hang")
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, cwd=ROOT)
    assert parent.stdout is not None
    child = os.pidfd_open(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    assert select.select([child], [], [], DEADLINE_S)[0], "the builder goes on without anybody"
    os.close(child)
    assert leftovers() == []


def test_without_a_gpu_a_library_that_needs_one_is_not_touched() -> None:
    if libcuda.available() is None:
        pytest.skip("this machine has a GPU")
    with pytest.raises(EngineError, match=r"there is no GPU for TensorRT: got .*driver"):
        build_plan(bundle_of({"float": graph()}), FP32, Machine(load_library(WEAK), GPU))


def test_a_library_that_is_gone_is_one_line() -> None:
    gone = replace(load_library(DYING), name="no_such_tensorrt")
    with pytest.raises(EngineError, match="the module no_such_tensorrt cannot be loaded"):
        build_plan(bundle_of({"float": graph()}), FP32, Machine(gone, GPU))


@needs_rtx
def test_the_demo_model_becomes_a_plan_and_the_progress_grows() -> None:
    shares: list[float] = []
    built = build_plan(
        open_bundle(demo_bundle_path()), FP32, Machine(load_library(RTX), GPU), BuildOptions(progress=shares.append)
    )
    assert len(built.plan) > 100_000
    assert 0 < built.build_s < DEADLINE_S
    assert built.peak_memory_bytes > 50 << 20
    assert shares == sorted(shares)
    assert shares[-1] > 0.8


@needs_rtx
def test_a_plan_is_built_for_the_wanted_batch_outputs_and_precision_and_kept(tmp_path: Path) -> None:
    bundle = bundle_of(
        {"fp16": graph("batch", half=True, outputs=2), "int8": graph("batch", quantized=True), "float": graph()}
    )
    machine, cache = Machine(load_library(RTX), GPU), PlanCache(tmp_path / "plans")
    both = BuildOptions(outputs=("class_map", "confidence"))
    half, many, int8 = (
        BuildSettings(precision="fp16"), BuildSettings(precision="fp16", max_batch=4), BuildSettings(precision="int8"),
    )  # fmt: skip
    wanted = [(half, BuildOptions()), (half, both), (many, BuildOptions()), (int8, BuildOptions())]
    made = [plan_of(bundle, settings, machine, cache, options) for settings, options in wanted]
    assert len(set(made)) == 4
    keys = [plan_key(bundle, settings, machine, options.outputs) for settings, options in wanted]
    assert [cache.load(key, machine.facts) for key in keys] == made
    with pytest.raises(EngineError, match="takes no batch of 4"):
        plan_of(bundle, BuildSettings(precision="fp32", max_batch=4), machine, cache)


def test_the_place_in_the_cache_changes_with_all_that_a_plan_depends_on() -> None:
    bundle = bundle_of({"float": graph(), "int8": graph(quantized=True)})
    machine = Machine(load_library(WEAK), GPU)
    outputs = ("class_map",)
    strong = replace(machine.library, abilities=Abilities(*[False, True, *[False] * 6]))
    keys = [
        plan_key(bundle, FP32, machine, outputs),
        plan_key(bundle, FP32, machine, ("class_map", "confidence")),
        plan_key(bundle, BuildSettings(precision="fp16"), machine, outputs),
        plan_key(bundle, BuildSettings(precision="int8"), machine, outputs),
        plan_key(bundle_of({"float": graph("batch")}), FP32, machine, outputs),
        plan_key(bundle, FP32, replace(machine, device=replace(GPU, uuid="GPU-1")), outputs),
        plan_key(bundle, FP32, replace(machine, library=strong), outputs),
    ]
    assert len({key.name for key in keys}) == len(keys)


@needs_rtx
@pytest.mark.parametrize(("integrated", "workspace_mib"), [(True, 1024), (False, None)])
def test_a_gpu_that_shares_its_memory_does_not_get_all_of_it(integrated: bool, workspace_mib: int | None) -> None:
    bundle = bundle_of({"float": graph()})
    machine = Machine(load_library(RTX), replace(GPU, integrated=integrated))
    lowering = lowering_of(bundle, FP32, machine.library.abilities)
    assert building._request(FP32, machine, lowering, BuildOptions()).settings.workspace_mib == workspace_mib
    asked = replace(FP32, workspace_mib=64)
    assert building._request(asked, machine, lowering, BuildOptions()).settings.workspace_mib == 64


def test_the_plan_that_is_kept_is_the_one_for_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILD_ENDS", "SIGKILL")
    bundle, machine = bundle_of({"float": graph()}), Machine(load_library(DYING), GPU)
    cache = PlanCache(tmp_path / "plans")
    key = plan_key(bundle, FP32, machine, ("class_map",))
    cache.plan(key, machine.facts, lambda: b"kept")
    assert plan_of(bundle, FP32, machine, cache) == b"kept"
    assert json.loads((tmp_path / f"plans/{key.name}.json").read_text())["gpu"] == "a GPU"


@pytest.mark.parametrize(
    ("told", "cameras", "expected"),
    [
        (None, 1, BuildSettings(precision="fp32")),
        (None, 4, BuildSettings(precision="fp32", max_batch=4)),
        (BuildSettings(precision="fp32", workspace_mib=64), 1, BuildSettings(precision="fp32", workspace_mib=64)),
        (BuildSettings(precision="fp32", max_batch=8), 4, BuildSettings(precision="fp32", max_batch=8)),
        (
            BuildSettings(precision="fp32", max_batch=2, optimization_level=1),
            4,
            BuildSettings(precision="fp32", max_batch=4, optimization_level=1),
        ),
    ],
)
def test_a_run_builds_as_was_told_last_and_for_all_of_its_cameras(
    tmp_path: Path, told: BuildSettings | None, cameras: int, expected: BuildSettings
) -> None:
    bundle, other = bundle_of({"float": graph("batch")}), bundle_of({"float": graph()})
    machine, cache = Machine(load_library(WEAK), GPU), PlanCache(tmp_path / "plans")
    if told is not None:
        keep_settings(bundle, told, cache)
        keep_settings(bundle, replace(told, precision="fp16", workspace_mib=7), cache)
    assert settings_of(bundle, "fp32", machine, cache, cameras) == expected
    assert settings_of(other, "fp32", machine, cache, cameras) == FP32, "its graph takes one picture at a time"
    elsewhere = replace(machine, device=replace(GPU, uuid="GPU-1"))
    assert settings_of(bundle, "fp32", elsewhere, cache, cameras) == expected, "as for plans that other GPUs take"


def test_a_dla_takes_one_picture_at_a_time_however_many_cameras_there_are(tmp_path: Path) -> None:
    bundle = bundle_of({"float": graph("batch"), "fp16": graph("batch", half=True)})
    machine, cache = Machine(load_library(WEAK), GPU), PlanCache(tmp_path / "plans")
    told = BuildSettings(precision="fp16", dla_core=0)
    keep_settings(bundle, told, cache)
    assert settings_of(bundle, "fp16", machine, cache, 4) == told


def test_what_this_release_cannot_do_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bundle = bundle_of({"float": graph(), "fp16": graph(half=True)})
    library = load_library(WEAK)
    cache = PlanCache(tmp_path / "plans")
    keep_settings(bundle, BuildSettings(precision="fp16", dla_core=0, workspace_mib=64), cache)
    newer = replace(library, abilities=replace(library.abilities, weakly_typed=False, strongly_typed=True))
    assert settings_of(bundle, "fp16", Machine(newer, GPU), cache, 1) == BuildSettings(precision="fp16")
    assert "not as `vidseg build` was told" in caplog.text
    forget_settings(bundle, "fp16", cache)
    caplog.clear()
    assert settings_of(bundle, "fp16", Machine(newer, GPU), cache, 1) == BuildSettings(precision="fp16")
    assert caplog.text == ""
