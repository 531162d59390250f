"""A process that ignores Ctrl-C, or loses its file on SIGTERM, has to be killed by hand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from tests.fakes import CollectingSink, MemorySource
from vidseg.runtime.clock import SystemClock
from vidseg.runtime.engines.fake import FakeEngine, FakeService
from vidseg.runtime.errors import StopTimeoutError
from vidseg.runtime.pipeline import Pipeline, signals_end
from vidseg.runtime.pipeline.signals import Interrupted, signals_raised, signals_set

pytestmark = pytest.mark.timeout(30)


def _kill_at(index: int, *numbers: signal.Signals) -> MemorySource:
    def gate(at: int, _stop: threading.Event) -> None:
        if at == index:
            for number in numbers:
                os.kill(os.getpid(), number)

    return MemorySource(10**9, gate=gate)


@contextmanager
def _handled(number: signal.Signals, handler: Any) -> Iterator[None]:
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


@pytest.fixture(autouse=True)
def not_ignored() -> Iterator[None]:
    """A shell's background job, as the tests may be, starts with SIGINT ignored."""
    with _handled(signal.SIGINT, signal.default_int_handler):
        yield


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_delivers_what_is_on_its_way(number: signal.Signals) -> None:
    sink = CollectingSink()
    pipeline = Pipeline([_kill_at(30, number)], lambda: FakeEngine((16, 12)), [sink])
    with _handled(number, signal.default_int_handler):  # whatever started the tests may ignore it
        with signals_end(pipeline) as received:
            pipeline.run()
        assert signal.getsignal(number) is signal.default_int_handler
    ledger = pipeline.statistics().ledger
    assert received.number == number
    assert ledger.dropped == {}
    assert len(sink.results) == ledger.captured
    assert sink.closed == 1


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


def test_a_signal_that_does_not_wake_the_main_thread_is_heard_all_the_same() -> None:
    """The system may give it to any thread."""
    sink = CollectingSink(before=lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT))
    pipeline = Pipeline([MemorySource(10**9)], lambda: FakeEngine((16, 12), FakeService(5.0)), [sink])
    with signals_end(pipeline) as received:
        pipeline.run()
    assert received.number == signal.SIGINT
    assert pipeline.statistics().ledger.balanced


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """As under nohup: the terminal goes, the run goes on."""
    sink = CollectingSink()

    def hang_up(index: int, _stop: threading.Event) -> None:
        if index == 5:
            os.kill(os.getpid(), signal.SIGHUP)

    pipeline = Pipeline([MemorySource(20, gate=hang_up)], lambda: FakeEngine((16, 12)), [sink])
    with _handled(signal.SIGHUP, signal.SIG_IGN), signals_end(pipeline) as received:
        pipeline.run()
    assert received.number is None
    assert sink.indices == list(range(20))


def test_sigterm_ends_in_5_s_with_files_closed_although_a_source_hangs() -> None:
    released = threading.Event()
    clock = SystemClock()
    killed_ns: list[int] = []

    def hang(at: int, _stop: threading.Event) -> None:
        if at == 3:
            killed_ns.append(clock.now_ns())
            os.kill(os.getpid(), signal.SIGTERM)
            released.wait(20)  # as a read from a dead network share would, whatever else happens

    sink = CollectingSink()
    pipeline = Pipeline([MemorySource(10**9, gate=hang)], lambda: FakeEngine((16, 12)), [sink])
    try:
        with signals_end(pipeline), pytest.raises(StopTimeoutError, match="source memory"):
            pipeline.run()
        assert (clock.now_ns() - killed_ns[0]) / 1e9 < 5
        assert sink.indices == [0, 1, 2]
        assert sink.closed == 1
    finally:
        released.set()


def test_a_signal_during_a_wait_for_the_event_that_it_sets_does_not_hang() -> None:
    stop = threading.Event()
    send = f"import os\nwhile True: os.kill({os.getpid()}, {signal.SIGINT:d})"
    with _handled(signal.SIGINT, signal.default_int_handler), signals_set(stop) as received:
        sender = subprocess.Popen([sys.executable, "-c", send])
        try:
            assert stop.wait(20)
            for _ in range(5_000):
                stop.clear()
                stop.wait(1e-6)  # a handler may run between any two steps of this, the event's lock held
        finally:
            sender.kill()
            sender.wait()
        stop.clear()
        signal.raise_signal(signal.SIGINT)
        assert stop.wait(20)
    assert received.number == signal.SIGINT


def _work(number: signal.Signals, *while_cleaning_up: signal.Signals, cleaned: list[bool]) -> None:
    """What a signal ends, and what comes while it cleans up."""
    with signals_raised():
        try:
            with suppress(Exception):  # as around converters, whose errors have no common base
                signal.raise_signal(number)
        finally:
            for another in while_cleaning_up:
                signal.raise_signal(another)
            cleaned.append(True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_a_signal_ends_is_cleaned_up(number: signal.Signals) -> None:
    """Although it comes between any two steps, and a supervisor asks twice. A second Ctrl-C is from a person."""
    cleaned: list[bool] = []
    asked_twice = (signal.SIGTERM, signal.SIGHUP)
    with ExitStack() as stack:
        for heeded in (signal.SIGINT, *asked_twice):
            stack.enter_context(_handled(heeded, signal.default_int_handler))
        with pytest.raises(Interrupted, match=number.name) as caught:
            _work(number, *asked_twice, cleaned=cleaned)
        assert signal.getsignal(number) is signal.default_int_handler
        with pytest.raises(Interrupted, match=number.name):
            _work(number, signal.SIGINT, cleaned=cleaned)
    assert caught.value.number == number
    assert cleaned == [True]


def test_a_signal_that_is_ignored_is_not_raised() -> None:
    with _handled(signal.SIGHUP, signal.SIG_IGN), signals_raised():
        signal.raise_signal(signal.SIGHUP)
