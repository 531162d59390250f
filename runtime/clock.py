"""Time as the pipeline sees it, injected so that a test can hold it still."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """A source of time. `now_ns` never runs backwards; `wall_ns` may."""

    def now_ns(self) -> int:
        """Monotonic time in nanoseconds."""

    def wall_ns(self) -> int:
        """Time since the Unix epoch in nanoseconds."""

    def sleep_until(self, deadline_ns: int, stop: threading.Event) -> bool:
        """Wait until `now_ns()` reaches `deadline_ns`; return False as soon as `stop` is set."""


class SystemClock:
    """The operating system's clocks."""

    def now_ns(self) -> int:
        """`time.monotonic_ns()`."""
        return time.monotonic_ns()

    def wall_ns(self) -> int:
        """`time.time_ns()`."""
        return time.time_ns()

    def sleep_until(self, deadline_ns: int, stop: threading.Event) -> bool:
        """Wait on `stop` itself, so that a stop ends the wait at once."""
        remaining_ns = deadline_ns - time.monotonic_ns()
        return not stop.wait(max(remaining_ns, 0) / 1e9)
