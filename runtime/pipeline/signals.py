"""SIGINT, SIGTERM and SIGHUP for a running pipeline."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType

from vidseg.runtime.pipeline.pipeline import Pipeline

TERM_DRAIN_S = 3.5
"""SIGTERM ends the process within 5 s, a hung source included: what is not delivered by then is given up."""


class Received:
    """The first signal that came, or None."""

    number: signal.Signals | None = None


@contextmanager
def signals_set(stop: threading.Event) -> Iterator[None]:
    """While this is open, SIGINT and SIGTERM set an event instead of ending the process. Main thread only.

    Another thread sets it: a handler that interrupts `stop.wait` finds the event's lock held by its own thread, and
    would wait for ever.
    """
    came: SimpleQueue[bool] = SimpleQueue()  # its put is safe in a handler

    def set_stop() -> None:
        while came.get():
            stop.set()

    setter = threading.Thread(target=set_stop, name="signals")
    setter.start()
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, lambda _number, _frame: came.put(True)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
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

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    heeded = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]  # as under nohup
    previous = {number: signal.signal(number, handle) for number in heeded}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
