"""SIGINT, SIGTERM and SIGHUP, for a running pipeline, a recording and an export."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType

from vidseg.runtime.pipeline.pipeline import Pipeline

TERM_DRAIN_S = 3.5
"""SIGTERM ends the process within 5 s, a hung source included: what is not delivered by then is given up."""

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Received:
    """The first signal that came, or None."""

    number: signal.Signals | None = None


class Interrupted(BaseException):
    """A signal has ended what was going on. As KeyboardInterrupt, it is no fault that anybody may handle on the way.

    Attributes:
        number: which one.
    """

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.number = number


@contextmanager
def signals_raised() -> Iterator[None]:
    """While this is open, the first SIGINT, SIGTERM or SIGHUP raises `Interrupted`: what is under way cleans up.

    The cleaning up is not disturbed by more of them, but for another Ctrl-C. Main thread only. For work that waits for
    nothing but the processor, files and child processes: the exception comes between any two steps, and would leave
    the lock of a queue or an event held.
    """
    received = Received()

    def handle(number: int, _frame: FrameType | None) -> None:
        again = received.number is not None
        received.number = received.number or signal.Signals(number)
        if not again or number == signal.SIGINT:
            raise Interrupted(received.number)

    with _handled_by(handle):
        yield


@contextmanager
def signals_set(stop: threading.Event) -> Iterator[Received]:
    """While this is open, SIGINT, SIGTERM and SIGHUP set an event instead of ending the process. Main thread only.

    Another thread sets it: a handler that interrupts `stop.wait` finds the event's lock held by its own thread, and
    would wait for ever.
    """
    received = Received()
    came: SimpleQueue[bool] = SimpleQueue()  # its put is safe in a handler

    def set_stop() -> None:
        while came.get():
            stop.set()

    def handle(number: int, _frame: FrameType | None) -> None:
        received.number = received.number or signal.Signals(number)
        came.put(True)

    setter = threading.Thread(target=set_stop, name="signals")
    setter.start()
    try:
        with _handled_by(handle):
            yield received
    finally:
        came.put(False)
        setter.join()


@contextmanager
def signals_end(pipeline: Pipeline) -> Iterator[Received]:
    """While this is open, the first SIGINT drains `pipeline`, a second aborts it; SIGTERM, and SIGHUP
    of a terminal that closes, drain it for 3.5 s.

    Main thread only. The handlers that were there before come back at the end.
    """
    received = Received()

    def handle(number: int, _frame: FrameType | None) -> None:
        again = received.number is not None
        received.number = received.number or signal.Signals(number)
        if again:
            pipeline.abort()
        else:
            pipeline.drain(None if number == signal.SIGINT else TERM_DRAIN_S)

    with _handled_by(handle):
        yield received


@contextmanager
def _handled_by(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    heeded = [number for number in _NUMBERS if signal.getsignal(number) != signal.SIG_IGN]  # as under nohup
    previous = {number: signal.signal(number, handle) for number in heeded}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
