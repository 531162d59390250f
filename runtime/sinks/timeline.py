"""`Timeline`: one time for the frames of any number of sources."""

from __future__ import annotations

from vidseg.runtime.frame import Frame

STEP_NS = 1_000_000
"""Least time from one frame to the next; players stumble over less."""

JOIN_NS = 33_333_333
"""Time between the last frame of one connection and the first of the next, which nobody knows."""

MAX_BACK_NS = 1_000_000_000
MAX_AHEAD_NS = 3_600_000_000_000
"""Stamps that jump further back or ahead come from a clock that was set: the time line goes on without the jump."""


class Timeline:
    """Gives each frame a time that starts at 0, keeps the distances of its source's stamps, and always grows."""

    def __init__(self) -> None:
        self._last_ns: int | None = None
        self._epochs: dict[str, int] = {}
        self._offsets_ns: dict[str, int] = {}

    def place_ns(self, frame: Frame) -> int:
        """The frame's time in nanoseconds; larger than every one before."""
        if self._last_ns is None:
            self._last_ns = -JOIN_NS
        ahead_ns = frame.stamp_ns + self._offsets_ns.get(frame.source, 0) - self._last_ns
        if self._epochs.get(frame.source) != frame.epoch or not -MAX_BACK_NS <= ahead_ns <= MAX_AHEAD_NS:
            self._epochs[frame.source] = frame.epoch
            self._offsets_ns[frame.source] = self._last_ns + JOIN_NS - frame.stamp_ns
            ahead_ns = JOIN_NS
        self._last_ns += max(ahead_ns, STEP_NS)
        return self._last_ns
