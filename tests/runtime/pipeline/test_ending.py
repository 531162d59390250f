"""A run that cannot be ended, or that ends and keeps threads and files, has to be killed by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.fakes import CollectingSink, MemorySource
from vidseg.runtime.engines import Engine
from vidseg.runtime.engines.fake import FakeEngine
from vidseg.runtime.errors import SourceLostError, StopTimeoutError, UsageError
from vidseg.runtime.pipeline import Pipeline

pytestmark = pytest.mark.timeout(30)


def _engine() -> Callable[[], Engine]:
    return lambda: FakeEngine((16, 12))


def test_results_one_by_one() -> None:
    with Pipeline([MemorySource(30)], _engine()) as pipeline:
        indices = [result.frame.index for result in pipeline]
    assert indices == list(range(30))
    assert pipeline.state == "stopped"


def test_break_releases_everything() -> None:
    source = MemorySource(10**9)
    with Pipeline([source], _engine()) as pipeline:
        for result in pipeline:
            if result.frame.index == 10:
                break
    assert pipeline.state == "stopped"
    assert source.closed == 1
    assert pipeline.statistics().ledger.balanced
    assert pipeline.statistics().ledger.in_flight == 0


def test_an_exception_in_the_loop_releases_everything_and_is_not_hidden() -> None:
    source = MemorySource(10**9)

    def fail_in_the_loop() -> None:
        with Pipeline([source], _engine()) as pipeline:
            for _ in pipeline:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_in_the_loop()
    assert source.closed == 1


def test_an_error_behind_the_loop_surfaces_in_the_loop() -> None:
    source = MemorySource(10, faults={5: SourceLostError("gone")})
    seen: list[int] = []

    def read_all() -> None:
        with Pipeline([source], _engine()) as pipeline:
            seen.extend(result.frame.index for result in pipeline)

    with pytest.raises(SourceLostError):
        read_all()


class TestStop:
    def test_before_the_start(self) -> None:
        pipeline = Pipeline([MemorySource(5)], _engine(), [CollectingSink()])
        pipeline.stop()
        assert pipeline.state == "stopped"
        with pytest.raises(UsageError, match="runs once"):
            pipeline.run()

    def test_while_running_from_another_thread(self) -> None:
        running = threading.Event()
        source = MemorySource(10**9, gate=lambda index, _: running.set() if index == 20 else None)
        pipeline = Pipeline([source], _engine(), [CollectingSink()])
        runner = threading.Thread(target=pipeline.run, daemon=True)
        runner.start()
        assert running.wait(10)
        pipeline.stop()
        runner.join(5)
        assert not runner.is_alive()
        assert pipeline.statistics().ledger.in_flight == 0
        assert pipeline.statistics().ledger.balanced

    def test_from_a_sink(self) -> None:
        source = MemorySource(10**9)
        pipeline = Pipeline([source], _engine(), [CollectingSink(before=lambda: pipeline.stop())])  # noqa: PLW0108
        pipeline.run()
        assert source.closed == 1

    def test_while_draining(self) -> None:
        gate, entered = threading.Event(), threading.Event()

        def hold() -> None:
            entered.set()
            gate.wait(10)

        pipeline = Pipeline([MemorySource(10**9)], _engine(), [CollectingSink(before=hold)])
        pipeline.start()
        assert entered.wait(10)
        pipeline.drain()
        gate.set()
        pipeline.stop()
        assert pipeline.state == "stopped"

    def test_a_window_is_served_by_run_alone(self) -> None:
        sink = CollectingSink()
        sink.main_thread = True
        pipeline = Pipeline([MemorySource(5)], _engine(), [sink])
        with pytest.raises(UsageError, match=r"works with run\(\) only"):
            pipeline.start()
        pipeline.stop()
        assert pipeline.state == "stopped"

    def test_twice_and_after_the_end(self) -> None:
        pipeline = Pipeline([MemorySource(5)], _engine(), [CollectingSink()])
        pipeline.run()
        pipeline.stop()
        pipeline.stop()
        assert pipeline.state == "stopped"

    def test_names_the_thread_that_outlives_it(self) -> None:
        hung, release = threading.Event(), threading.Event()

        def hang(index: int, _stop: threading.Event) -> None:
            if index == 3:
                hung.set()
                release.wait(20)

        pipeline = Pipeline([MemorySource(10, name="camera", gate=hang)], _engine(), [CollectingSink()])
        pipeline.start()
        assert hung.wait(10)
        with pytest.raises(StopTimeoutError, match="source camera"):
            pipeline.stop(0.2)
        release.set()


def test_drain_delivers_what_is_on_its_way() -> None:
    started = threading.Event()
    sink = CollectingSink()
    source = MemorySource(10**9, gate=lambda index, _: started.set() if index == 30 else None)
    pipeline = Pipeline([source], _engine(), [sink])
    runner = threading.Thread(target=pipeline.run, daemon=True)
    runner.start()
    assert started.wait(10)
    pipeline.drain()
    runner.join(10)
    ledger = pipeline.statistics().ledger
    assert ledger.dropped == {}
    assert len(sink.results) == ledger.captured


def test_a_source_that_fails_while_it_is_closed_does_not_hang_the_run() -> None:
    class Unclosable(MemorySource):
        def close(self) -> None:
            raise SourceLostError("cannot be closed")

    sink = CollectingSink()
    with pytest.raises(SourceLostError, match="cannot be closed"):
        Pipeline([Unclosable(10)], _engine(), [sink]).run()
    assert sink.indices == list(range(10))
