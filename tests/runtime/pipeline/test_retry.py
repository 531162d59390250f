"""A camera that comes back has to be seen again, without a person; one that is not there must not be asked to death."""

from __future__ import annotations

import logging
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import CollectingSink, MemorySource, VirtualClock, picture_of
from vidseg.runtime.clock import Clock, SystemClock
from vidseg.runtime.engines.fake import FakeEngine
from vidseg.runtime.errors import FrameError, SourceError, SourceLostError, SourceOpenError, SourceRefusedError
from vidseg.runtime.frame import Frame, SourceStatus
from vidseg.runtime.pipeline import Pipeline
from vidseg.runtime.pipeline.options import PipelineOptions
from vidseg.runtime.pipeline.retry import MOST_REFUSED_S, PROBE_S, Backoff, Retry
from vidseg.runtime.sinks.callback import CallbackSink

pytestmark = pytest.mark.timeout(60)
REFUSED, AWAY = SourceRefusedError("wrong password"), SourceOpenError("no route")


@given(st.lists(st.sampled_from([REFUSED, AWAY, None]), max_size=30), st.integers(0, 99))
def test_who_is_away_is_probed_every_second_and_who_refuses_less_and_less(
    failures: list[SourceError | None], seed: int
) -> None:
    backoff, refusals = Backoff(seed), 0
    for error in failures:
        if error is None:
            backoff.works()
            refusals = 0
        elif error is AWAY:
            assert backoff.wait_s(error) == PROBE_S
            refusals = 0
        else:
            most_s = min(0.5 * 2**refusals, MOST_REFUSED_S)
            assert most_s / 2 <= backoff.wait_s(error) <= most_s
            refusals += 1


class FlakySource:
    """A camera whose openings fail, or give so many frames before it is lost; after the last it ends."""

    name = "camera"
    live = True

    def __init__(self, *openings: int | SourceError) -> None:
        self.openings = list(openings)
        self.opened = self.closed = 0
        self._left = 0
        self._index = 0

    def open(self, clock: Clock, stop: threading.Event) -> None:
        self._clock, self._stop = clock, stop
        opening = self.openings[self.opened]
        self.opened += 1
        if isinstance(opening, SourceError):
            raise opening
        self._left, self._index = opening, 0

    def read(self) -> Frame | None:
        if self._index == self._left:
            if self.opened == len(self.openings):
                return None
            raise SourceLostError("camera: the stream has frozen")
        self._index += 1
        now_ns = self._clock.now_ns()
        return Frame(self.name, self.opened, self._index - 1, now_ns, now_ns, "driver", picture_of(self._index))

    def close(self) -> None:
        self.closed += 1


def run(source: FlakySource, retry: Retry) -> list[tuple[int, int]]:
    sink = CollectingSink()
    options = PipelineOptions(retry=retry, every_frame=True)
    pipeline = Pipeline([source], lambda: FakeEngine((16, 12)), [sink], options=options, clock=VirtualClock())
    try:
        pipeline.run()
    finally:
        ledger = pipeline.statistics().ledger
        assert (ledger.balanced, ledger.in_flight) == (True, 0)
        assert source.closed >= 1
    return [(result.frame.epoch, result.frame.index) for result in sink.results]


def test_a_camera_that_comes_back_is_used_again_and_the_log_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = run(FlakySource(3, AWAY, AWAY, AWAY, 2), "once_seen")
    assert found[-1] == (5, 1)
    assert sorted(found) == found
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "camera: the stream has frozen. It is tried again, every second.",
        "no route. It is tried again, every second.",
        "camera is back after 4.0 s.",
    ]


def test_a_damaged_camera_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Ten damaged frames a second, for 65 s."""
    clock = VirtualClock()

    def pass_time(index: int, stop: threading.Event) -> None:
        if index % 10 == 0:
            clock.sleep_until(clock.now_ns() + 1_000_000_000, stop)

    damage = {index: FrameError(f"cam: frame {index} is damaged", "", "It is left out.") for index in range(650)}
    source = MemorySource(651, faults=dict(damage), gate=pass_time, live=True)
    pipeline = Pipeline([source], lambda: FakeEngine((16, 12)), clock=clock)
    pipeline.run()
    assert pipeline.statistics().ledger.dropped == {"bad_frame": 650}
    assert [record.getMessage() for record in caplog.records] == [
        "cam: frame 0 is damaged. It is left out.",
        "cam: frame 300 is damaged. It is left out. (299 lines were left out before.)",
        "cam: frame 600 is damaged. It is left out. (299 lines were left out before.)",
        "memory: 49 more lines like that were left out",
    ]


def test_a_camera_that_comes_and_goes_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Two lines each time, for ever, would be a gigabyte a year."""
    run(FlakySource(*[2] * 1000), "once_seen")
    times = [record.getMessage() for record in caplog.records]
    assert 8 <= len(times) <= 8 + 2 + 1000 / 60
    assert "lines were left out before" in times[-2]


def test_a_camera_that_never_was_there_is_an_error_unless_it_is_to_be_waited_for() -> None:
    with pytest.raises(SourceOpenError):
        run(FlakySource(AWAY, 3), "once_seen")
    assert len(run(FlakySource(AWAY, REFUSED, 3), "always")) == 3


def test_a_camera_without_which_nothing_goes_ends_the_run() -> None:
    with pytest.raises(SourceLostError):
        run(FlakySource(3, 3), "never")


def test_sinks_are_told_what_a_source_does_that_gives_nothing() -> None:
    told: list[SourceStatus] = []
    enough = threading.Event()

    def hear(status: SourceStatus) -> None:
        told.append(status)
        if status.state == "refused":
            enough.set()

    source = FlakySource(2, *[AWAY] * 2, *[REFUSED] * 50)
    sink = CallbackSink(lambda _result: None, on_status=hear)
    options = PipelineOptions(retry="once_seen", heartbeat_ms=100)
    pipeline = Pipeline([source], lambda: FakeEngine((16, 12)), [sink], options=options, clock=SystemClock())
    pipeline.start()
    assert enough.wait(30)
    pipeline.drain()
    pipeline.stop(5)
    assert told[0].state == "lost"
    assert len({status.since_ns for status in told}) == 1, "it is gone since it was lost, not since the last try"
