"""Giving recorded frames out at the pace at which they were taken."""

from __future__ import annotations

import threading

from vidseg.runtime.clock import Clock

MAX_LAG_NS = 500_000_000
"""Frames that are later than this are not caught up with: time goes on from here, so that no fast-forward is seen."""

MAX_HOLD_NS = 60_000_000_000
"""A frame that would have to wait longer than this follows a jump of the stamps, and is given out at once."""


class Pacer:
    """Holds each frame until its time stamp is due; the first one is due at once."""

    def __init__(self) -> None:
        self._now_from_stamp_ns: int | None = None

    def wait(self, stamp_ns: int, clock: Clock, stop: threading.Event) -> bool:
        """Wait until the frame of `stamp_ns` is due; return False as soon as `stop` is set."""
        now_ns = clock.now_ns()
        if self._now_from_stamp_ns is None:
            self._now_from_stamp_ns = now_ns - stamp_ns
        due_ns = stamp_ns + self._now_from_stamp_ns
        if not -MAX_LAG_NS <= due_ns - now_ns <= MAX_HOLD_NS:
            self._now_from_stamp_ns = now_ns - stamp_ns
            due_ns = now_ns
        return clock.sleep_until(due_ns, stop)
