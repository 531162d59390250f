"""A process that ignores Ctrl-C, or loses its file on SIGTERM, has to be killed by hand."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from tests.fakes import CollectingSink, MemorySource
from vidseg.runtime.engines.fake import FakeEngine
from vidseg.runtime.pipeline import Pipeline, signals_end

pytestmark = pytest.mark.timeout(30)


def _kill_at(index: int, *numbers: signal.Signals) -> MemorySource:
    def gate(at: int, _stop: threading.Event) -> None:
        if at == index:
            for number in numbers:
                os.kill(os.getpid(), number)

    return MemorySource(10**9, gate=gate)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_delivers_what_is_on_its_way(number: signal.Signals) -> None:
    sink = CollectingSink()
    pipeline = Pipeline([_kill_at(30, number)], lambda: FakeEngine((16, 12)), [sink])
    before = signal.getsignal(number)
    with signals_end(pipeline) as received:
        pipeline.run()
    ledger = pipeline.statistics().ledger
    assert received.number == number
    assert ledger.dropped == {}
    assert len(sink.results) == ledger.captured
    assert sink.closed == 1
    assert signal.getsignal(number) is before


def test_a_second_sigint_gives_up_what_is_on_its_way_and_still_closes_the_sink() -> None:
    first_write = threading.Event()

    def wait_for_state(state: str) -> None:
        while pipeline.state != state:
            os.sched_yield()

    def interrupt_twice() -> None:
        if not first_write.is_set():
            first_write.set()
            os.kill(os.getpid(), signal.SIGINT)
            wait_for_state("draining")
            os.kill(os.getpid(), signal.SIGINT)
            wait_for_state("aborting")

    sink = CollectingSink(before=interrupt_twice)
    pipeline = Pipeline([MemorySource(10**9)], lambda: FakeEngine((16, 12)), [sink])
    with signals_end(pipeline):
        pipeline.run()
    ledger = pipeline.statistics().ledger
    assert len(sink.results) < ledger.captured
    assert ledger.balanced
    assert ledger.in_flight == 0
    assert sink.closed == 1
