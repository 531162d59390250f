"""Wall-clock times of frames, for people."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from vidseg.runtime.clock import Clock

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_LAST_MS = 253_402_300_799_000  # the end of 9999


def wall_ns_of(clock: Clock, monotonic_ns: int) -> int:
    """When that was, since the Unix epoch, by the wall clock as it is set now."""
    return clock.wall_ns() - (clock.now_ns() - monotonic_ns)


def utc_of(wall_ns: int) -> datetime:
    """A time since the Unix epoch, to the millisecond; what no calendar has is the nearest that it has."""
    milliseconds = min(max(wall_ns // 1_000_000, 0), _LAST_MS)
    return _EPOCH + timedelta(milliseconds=milliseconds)


def iso_text(wall_ns: int) -> str:
    """The same as `2026-01-02T03:04:05.678Z`."""
    return utc_of(wall_ns).isoformat(timespec="milliseconds").replace("+00:00", "Z")
