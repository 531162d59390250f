"""`PreRoll`: the last seconds of a source, encoded, in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from vidseg.runtime.sinks.recording.packets import EncodedPicture


class PreRoll:
    """Keeps what a file needs to show the last `seconds` up to now: from the last keyframe that is at least as old.

    Args:
        seconds: that are promised; with a keyframe every second at most one more is kept.
        max_bytes: what would exceed it goes, the oldest first.

    Attributes:
        size_bytes: of all that is kept.
        is_cut: something went for `max_bytes` only: less than what is promised is there.
    """

    def __init__(self, seconds: float, max_bytes: int) -> None:
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._groups: deque[list[EncodedPicture]] = deque()  # each begins with a keyframe
        self.size_bytes = 0
        self.is_cut = False

    def push(self, picture: EncodedPicture) -> None:
        """Add the newest picture. One that no keyframe comes before is of no use and is left out."""
        if picture.is_keyframe:
            self._groups.append([])
        elif not self._groups:
            return
        self._groups[-1].append(picture)
        self.size_bytes += len(picture.data)
        promised_ns = picture.time_ns - round(self._seconds * 1e9)
        while len(self._groups) > 1 and self._groups[1][0].time_ns <= promised_ns:
            self._drop_oldest()
        while self._groups and self.size_bytes > self._max_bytes:
            self._drop_oldest()
            self.is_cut = True

    def __iter__(self) -> Iterator[EncodedPicture]:
        """Oldest first; the first one is a keyframe."""
        for group in self._groups:
            yield from group

    @property
    def held_s(self) -> float:
        """From the oldest picture to the newest."""
        return (self._groups[-1][-1].time_ns - self._groups[0][0].time_ns) / 1e9 if self._groups else 0.0

    def clear(self) -> None:
        """Forget all: what comes next does not continue it."""
        self._groups.clear()
        self.size_bytes = 0

    def _drop_oldest(self) -> None:
        self.size_bytes -= sum(len(picture.data) for picture in self._groups.popleft())
