"""The promises that everything later rests on: order, no silent loss, errors that surface."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.fakes import CollectingSink, HookedEngine, ManualClock, MemorySource, classes_of
from vidseg.runtime.engines import Engine
from vidseg.runtime.engines.fake import FakeEngine, FakeService
from vidseg.runtime.errors import (
    DeviceError,
    EngineError,
    FrameError,
    SinkError,
    SourceLostError,
    SourceOpenError,
    UsageError,
)
from vidseg.runtime.frame import Image
from vidseg.runtime.pipeline import Pipeline, PipelineOptions
from vidseg.runtime.sinks import StopRequested

pytestmark = pytest.mark.timeout(30)
SIZE_WH = (16, 12)


def _engine(service: FakeService | None = None) -> Callable[[], Engine]:
    return lambda: FakeEngine(SIZE_WH, service)


def test_a_recording_loses_nothing_and_keeps_its_order() -> None:
    sink = CollectingSink()
    pipeline = Pipeline([MemorySource(200)], _engine(), [sink])
    pipeline.run()
    assert sink.indices == list(range(200))
    assert classes_of(sink.results) == [index % 8 for index in range(200)]  # each result is of its own frame
    ledger = pipeline.statistics().ledger
    assert (ledger.captured, ledger.resolved, ledger.in_flight, ledger.dropped) == (200, 200, 0, {})
    assert ledger.sinks["collecting"].written == 200
    assert ledger.balanced
    assert sink.closed == 1


def test_a_slow_sink_slows_a_recording_and_loses_nothing() -> None:
    gate = threading.Event()
    source, sink = MemorySource(60), CollectingSink(before=gate.wait, queue_size=1)
    pipeline = Pipeline([source], _engine(), [sink, CollectingSink("fast")])
    runner = threading.Thread(target=pipeline.run, daemon=True)
    runner.start()
    gate.set()
    runner.join(10)
    assert sink.indices == list(range(60))


def test_a_live_source_never_waits_and_every_missed_frame_is_counted() -> None:
    gate = threading.Event()
    read_all = threading.Event()

    def last_frame_is_read(index: int, _stop: threading.Event) -> None:
        if index == 99:
            read_all.set()
            gate.wait(10)

    source = MemorySource(100, live=True, gate=last_frame_is_read)
    sink = CollectingSink(before=gate.wait, queue_size=1)
    pipeline = Pipeline([source], _engine(), [sink])
    runner = threading.Thread(target=pipeline.run, daemon=True)
    runner.start()
    assert read_all.wait(10)  # the sink has taken nothing, yet the source read on
    assert pipeline.statistics().ledger.balanced
    gate.set()
    runner.join(10)
    ledger = pipeline.statistics().ledger
    assert ledger.captured == 100
    assert ledger.balanced
    assert ledger.in_flight == 0
    account = ledger.sinks["collecting"]
    assert ledger.dropped.get("replaced", 0) + account.dropped + account.written == 100
    assert sink.indices == sorted(sink.indices)
    assert sink.indices[-1] == 99  # the newest is never the one that is dropped


def test_the_books_balance_at_every_instant() -> None:
    sources = [MemorySource(300, name="a"), MemorySource(300, name="b", live=True)]
    pipeline = Pipeline(sources, _engine(FakeService((0.0, 0.5), seed=1)), [CollectingSink(), CollectingSink("second")])
    done = threading.Event()
    seen = []

    def watch() -> None:
        while not done.is_set():
            seen.append(pipeline.statistics().ledger.balanced)

    watcher = threading.Thread(target=watch)
    watcher.start()
    pipeline.run()
    done.set()
    watcher.join(10)
    assert all(seen)
    assert len(seen) > 10


def test_age_is_measured_on_the_injected_clock() -> None:
    clock = ManualClock()

    sink = CollectingSink()
    Pipeline(
        [MemorySource(1)], lambda: HookedEngine(SIZE_WH, lambda: clock.advance_ms(40), clock), [sink], clock=clock
    ).run()
    assert sink.results[0].age_ms == pytest.approx(40)


def test_every_frame_discards_what_is_too_old_before_inference() -> None:
    clock = ManualClock()
    first_in_device = threading.Event()
    release = threading.Event()

    def wait_in_device() -> None:
        first_in_device.set()
        release.wait(10)

    def gate(index: int, _stop: threading.Event) -> None:
        if index == 1:
            first_in_device.wait(10)
        if index == 5:
            clock.advance_ms(500)
            release.set()

    sink = CollectingSink(queue_size=8)
    options = PipelineOptions(every_frame=True, max_age_ms=100)
    source = MemorySource(6, live=True, gate=gate)
    pipeline = Pipeline(
        [source], lambda: HookedEngine(SIZE_WH, wait_in_device, clock), [sink], options=options, clock=clock
    )
    pipeline.run()
    assert sink.indices == [0, 5]
    assert pipeline.statistics().ledger.dropped == {"over_age": 4}


def test_bad_frames_are_counted_and_passed_over() -> None:
    sink = CollectingSink()
    faults: dict[int, Exception] = {2: FrameError("frame 2 is torn"), 3: FrameError("frame 3 is torn")}
    pipeline = Pipeline([MemorySource(6, faults=faults)], _engine(), [sink])
    pipeline.run()
    assert sink.indices == [0, 1, 4, 5]
    assert pipeline.statistics().ledger.dropped == {"bad_frame": 2}
    assert pipeline.statistics().ledger.balanced


def test_a_source_of_bad_frames_only_is_an_error() -> None:
    faults: dict[int, Exception] = {index: FrameError("torn") for index in range(3)}
    with pytest.raises(SourceOpenError, match="no frame can be read: got 3 bad ones"):
        Pipeline([MemorySource(3, faults=faults)], _engine(), [CollectingSink()]).run()


def test_a_lost_source_is_raised_after_what_it_gave_is_delivered() -> None:
    sink = CollectingSink()
    source = MemorySource(10, faults={5: SourceLostError("gone")})
    with pytest.raises(SourceLostError, match="gone"):
        Pipeline([source], _engine(), [sink]).run()
    assert sink.indices == [0, 1, 2, 3, 4]
    assert source.closed == 1


def test_a_lost_source_does_not_stop_the_others() -> None:
    sink = CollectingSink()
    lost = MemorySource(10, name="lost", faults={0: SourceOpenError("not there")})
    with pytest.raises(SourceOpenError, match="not there"):
        Pipeline([lost, MemorySource(50, name="good")], _engine(), [sink]).run()
    assert sink.indices == list(range(50))


def test_the_first_exception_is_raised_by_run() -> None:
    class BugError(Exception):
        pass

    with pytest.raises(BugError):
        Pipeline([MemorySource(10, faults={3: BugError()})], _engine(), [CollectingSink()]).run()
    with pytest.raises(BugError):
        Pipeline([MemorySource(10)], _engine(), [CollectingSink(fault=BugError(), fault_at=2)]).run()

    def broken_engine() -> Engine:
        raise BugError

    with pytest.raises(BugError):
        Pipeline([MemorySource(10)], broken_engine, [CollectingSink()]).run()

    def broken_draw(*_: object) -> Image:
        raise BugError

    sink = CollectingSink(wants_picture=True)
    pipeline = Pipeline([MemorySource(10)], _engine(), [sink], draw=broken_draw)
    with pytest.raises(BugError):
        pipeline.run()
    assert sink.closed == 1
    assert pipeline.statistics().ledger.balanced
    assert pipeline.statistics().ledger.in_flight == 0


def test_a_failing_sink_is_detached_and_the_others_get_everything() -> None:
    failing = CollectingSink("failing", fault=SinkError("full disk"), fault_at=3)
    good = CollectingSink("good")
    pipeline = Pipeline([MemorySource(40)], _engine(), [failing, good])
    with pytest.raises(SinkError, match="full disk"):
        pipeline.run()
    assert good.indices == list(range(40))
    assert failing.indices == [0, 1, 2]
    assert failing.closed == 1
    account = pipeline.statistics().ledger.sinks["failing"]
    assert (account.written, account.failed) == (3, 1)
    assert account.balanced


def test_a_sink_can_ask_for_the_end() -> None:
    sink = CollectingSink(fault=StopRequested(), fault_at=2, queue_size=1)
    forever = MemorySource(10**9)
    Pipeline([forever], _engine(), [sink]).run()
    assert forever.closed == 1


@pytest.mark.parametrize("failures", [(5,), (5, 6)])
def test_an_inference_fault_is_retried_then_the_engine_is_rebuilt(failures: tuple[int, ...]) -> None:
    opened: list[int] = []

    def open_engine() -> Engine:
        faults = {call: EngineError("fault") for call in failures} if not opened else {}
        opened.append(1)
        return FakeEngine(SIZE_WH, FakeService(faults=faults))

    sink = CollectingSink()
    source = MemorySource(20, live=False, gate=None)
    Pipeline([source], open_engine, [sink]).run()
    assert sink.indices == list(range(20))
    assert classes_of(sink.results) == [index % 8 for index in range(20)]


def test_inference_that_stays_broken_ends_the_run() -> None:
    broken = FakeService(faults={call: EngineError("still broken") for call in range(100)})
    pipeline = Pipeline([MemorySource(20)], _engine(broken), [CollectingSink()])
    with pytest.raises(EngineError, match="still broken"):
        pipeline.run()
    assert pipeline.statistics().ledger.balanced
    assert pipeline.statistics().ledger.in_flight == 0


def test_the_engine_is_opened_anew_once_and_not_for_ever() -> None:
    opened: list[int] = []

    def open_engine() -> Engine:
        """Each one infers a batch and then fails for good."""
        opened.append(1)
        return FakeEngine(SIZE_WH, FakeService(faults=dict.fromkeys(range(1, 100), EngineError("broken"))))

    with pytest.raises(EngineError, match="broken"):
        Pipeline([MemorySource(20)], open_engine, [CollectingSink()]).run()
    assert len(opened) == 2


def test_a_device_error_is_never_retried() -> None:
    opened: list[int] = []

    def open_engine() -> Engine:
        opened.append(1)
        return FakeEngine(SIZE_WH, FakeService(faults={0: DeviceError("sticky")}))

    with pytest.raises(DeviceError, match="sticky"):
        Pipeline([MemorySource(20)], open_engine, [CollectingSink()]).run()
    assert opened == [1]


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="needs a source"):
        Pipeline([], _engine())
    with pytest.raises(UsageError, match="two sources are the same"):
        Pipeline([MemorySource(1), MemorySource(1)], _engine())
    with pytest.raises(UsageError, match="wants pictures"):
        Pipeline([MemorySource(1)], _engine(), [CollectingSink(wants_picture=True)])
