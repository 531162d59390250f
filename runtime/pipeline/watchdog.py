"""Noticing that inference never returns: a thread in a library's call cannot be ended, only the process can."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from vidseg.runtime.clock import Clock
from vidseg.runtime.errors import EngineError


class Watchdog:
    """Knows since when the device has been at one piece of work.

    Args:
        hang_s: how long one may take; None: for ever.
        clock: for the times.
    """

    def __init__(self, hang_s: float | None, clock: Clock) -> None:
        self._hang_s = hang_s
        self._clock = clock
        self._lock = threading.Lock()
        self._since_ns: int | None = None

    @property
    def interval_s(self) -> float | None:
        """How often `check` has to be called; None where it never finds anything."""
        return None if self._hang_s is None else self._hang_s / 4

    @contextmanager
    def working(self) -> Iterator[None]:
        """Around a call that has to return."""
        with self._lock:
            self._since_ns = self._clock.now_ns()
        try:
            yield
        finally:
            with self._lock:
                self._since_ns = None

    def check(self) -> EngineError | None:
        """What is wrong, if anything is."""
        with self._lock:
            since_ns = self._since_ns
        if self._hang_s is None or since_ns is None:
            return None
        busy_s = (self._clock.now_ns() - since_ns) / 1e9
        if busy_s < self._hang_s:
            return None
        mend = "The run ends: the library's call cannot. Start it again."
        return EngineError("inference hangs", f"nothing for {busy_s:.0f} s", mend)
