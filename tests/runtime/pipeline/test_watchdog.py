"""A run whose inference never returns looks alive and does nothing; it has to end, so that somebody starts it again."""

from __future__ import annotations

import threading
from time import monotonic

import pytest

from tests.fakes import CollectingSink, HookedEngine, ManualClock, MemorySource
from vidseg.runtime.engines.fake import FakeEngine
from vidseg.runtime.errors import EngineError, UsageError
from vidseg.runtime.frame import Image, Segmentation
from vidseg.runtime.pipeline import Pipeline
from vidseg.runtime.pipeline.options import PipelineOptions
from vidseg.runtime.pipeline.statistics import Statistics
from vidseg.runtime.pipeline.status import status_line
from vidseg.runtime.pipeline.watchdog import Watchdog

pytestmark = pytest.mark.timeout(60)


def test_inference_that_hangs_ends_the_run_with_its_files_whole() -> None:
    release, batches = threading.Event(), []

    def hang() -> None:
        batches.append(1)
        if len(batches) == 5:
            release.wait(50)

    sink = CollectingSink()
    source = MemorySource(10**9, live=True)
    options = PipelineOptions(hang_s=0.5)
    pipeline = Pipeline([source], lambda: HookedEngine((16, 12), hang), [sink], options=options)
    started = monotonic()
    with pytest.raises(EngineError, match=r"inference hangs: got nothing for \d+ s"):
        pipeline.run()
    assert monotonic() - started < 10
    assert (sink.closed, source.closed) == (1, 1)
    assert len(sink.results) == 4
    assert pipeline.statistics().ledger.balanced
    release.set()


def test_only_one_piece_of_work_that_lasts_too_long_is_a_hang() -> None:
    clock = ManualClock()
    watchdog = Watchdog(2.0, clock)
    for _ in range(10):
        with watchdog.working("infer"):
            clock.advance_ms(1500)
            assert watchdog.check() is None
        clock.advance_ms(5000)
        assert watchdog.check() is None
    with watchdog.working("infer"):
        clock.advance_ms(2000)
        assert watchdog.check() is not None
    assert watchdog.check() is None
    forever = Watchdog(None, clock)
    with forever.working("infer"):
        clock.advance_ms(1e9)
        assert (forever.check(), forever.interval_s) == (None, None)


def test_a_sink_that_hangs_is_named_and_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    release, named = threading.Event(), threading.Event()

    def hang() -> None:
        if not release.is_set():
            release.wait(50)

    good, hung = CollectingSink(), CollectingSink("slow disk", before=hang)
    source = MemorySource(10**9, live=True)
    pipeline = Pipeline([source], lambda: FakeEngine((16, 12)), [good, hung], options=PipelineOptions(hang_s=0.2))

    def watch(statistics: Statistics) -> None:
        if statistics.hanging:
            assert statistics.hanging == ("sink slow disk",)
            assert "sink slow disk hangs" in status_line(statistics)
            named.set()
            release.set()
        elif named.is_set():
            pipeline.drain()

    pipeline.run(watch, 0.01)
    said = [record.getMessage() for record in caplog.records]
    assert [text.split()[:4] for text in said] == [["sink", "slow", "disk", "hangs:"], ["sink", "slow", "disk", "goes"]]
    assert len(good.results) > len(hung.results) > 0


def test_drawing_that_hangs_ends_the_run() -> None:
    release = threading.Event()

    def draw(_result: Segmentation, _statistics: object) -> Image:
        release.wait(50)
        raise AssertionError

    sink = CollectingSink(wants_picture=True)
    options = PipelineOptions(hang_s=0.3)
    source = MemorySource(10**9, live=True)
    pipeline = Pipeline([source], lambda: FakeEngine((16, 12)), [sink], options=options, draw=draw)
    with pytest.raises(EngineError, match="drawing hangs"):
        pipeline.run()
    release.set()


def test_a_time_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError):
        PipelineOptions(hang_s=0)
