"""A plan takes minutes to build; whoever ends the run before gets the terminal back, and no process stays behind."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

from tests.fakes import CollectingSink, ManualClock, MemorySource
from tests.processes import children_running
from tests.runtime.engines.tensorrt.graphs import bundle_of, graph
from tests.runtime.engines.tensorrt.test_building import DYING, FP32, GPU, ROOT
from vidseg.runtime.engines import Engine
from vidseg.runtime.engines.fake import FakeEngine
from vidseg.runtime.engines.opening import GpuUse
from vidseg.runtime.engines.tensorrt.build_process import BuildOptions
from vidseg.runtime.engines.tensorrt.building import Machine, build_plan
from vidseg.runtime.engines.tensorrt.library import load_library
from vidseg.runtime.errors import OpeningCancelledError
from vidseg.runtime.pipeline import Pipeline
from vidseg.runtime.pipeline.engine_opening import SAID_EVERY_NS, EngineOpener

pytestmark = pytest.mark.timeout(60)


def building_for_ever(building: threading.Event) -> EngineOpener:
    """Opens an engine whose plan is never finished."""

    def open_engine(gpu: GpuUse) -> Engine:
        def progress(share: float) -> None:
            if share > 0:
                building.set()
            gpu.progress(share)

        build_plan(
            bundle_of({"float": graph()}), FP32, Machine(load_library(DYING), GPU), BuildOptions(progress=progress)
        )
        raise AssertionError("the build never ends")

    return EngineOpener(open_engine, GpuUse())


@pytest.mark.parametrize("ending", ["drain", "abort"])
def test_a_run_that_ends_while_its_plan_is_built_ends_at_once_and_without_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ending: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("BUILD_ENDS", "hang")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    building = threading.Event()
    pipeline = Pipeline([MemorySource(10**9)], building_for_ever(building), [CollectingSink()])
    pipeline.start()
    assert building.wait(30)
    getattr(pipeline, ending)()
    pipeline.stop(5)
    ledger = pipeline.statistics().ledger
    assert (ledger.balanced, ledger.in_flight, ledger.resolved) == (True, 0, 0)
    assert children_running("build_child") == []
    assert list(tmp_path.iterdir()) == []


def test_a_drain_still_delivers_what_is_on_its_way_where_no_plan_is_built() -> None:
    asked, may_open = threading.Event(), threading.Event()

    def open_engine(_gpu: GpuUse) -> Engine:
        asked.set()
        assert may_open.wait(30)
        return FakeEngine((16, 12))

    sink = CollectingSink()
    waiting = threading.Event()
    source = MemorySource(10**9, gate=lambda index, _: waiting.set() if index == 3 else None)
    pipeline = Pipeline([source], EngineOpener(open_engine, GpuUse()), [sink])
    runner = threading.Thread(target=pipeline.run, daemon=True)
    runner.start()
    assert asked.wait(30)
    assert waiting.wait(30)
    pipeline.drain()
    may_open.set()
    runner.join(30)
    ledger = pipeline.statistics().ledger
    assert ledger.dropped == {}
    assert len(sink.results) == ledger.captured > 0


def test_the_log_says_now_and_then_that_it_takes_its_time(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()

    def open_engine(gpu: GpuUse) -> Engine:
        for tick in range(1, 31):
            clock.advance_ms(SAID_EVERY_NS / 1e7)
            gpu.progress(0 if tick < 15 else 0.4)
        return FakeEngine((16, 12))

    with caplog.at_level(logging.WARNING):
        EngineOpener(open_engine, GpuUse(), clock)().close()
    assert [record.getMessage() for record in caplog.records] == [
        "still making the engine ready",
        "still making the engine ready: 40% of its plan is built",
        "still making the engine ready: 40% of its plan is built",
    ]


def test_cancelling_holds_for_what_is_opened_later_too() -> None:
    def open_engine(gpu: GpuUse) -> Engine:
        gpu.progress(0.0)
        return FakeEngine((16, 12))

    opener = EngineOpener(open_engine, GpuUse())
    opener.cancel()
    with pytest.raises(OpeningCancelledError):
        opener()
