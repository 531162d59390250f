"""`Series`: one segment after the other, of one source."""

from __future__ import annotations

from collections.abc import Callable

from vidseg.runtime.sinks.recording.archive import Archive
from vidseg.runtime.sinks.recording.packets import EncodedPicture
from vidseg.runtime.sinks.recording.segment import Segment


class Series:
    """Writes pictures to segments; a new one begins at a keyframe where the one before is long or large enough.

    Args:
        source: its name.
        archive: gives the paths, and the room.
        segment_s: length of a segment.
        wall_ns: the wall-clock time of a monotonic one.
    """

    def __init__(self, source: str, archive: Archive, segment_s: float, wall_ns: Callable[[int], int]) -> None:
        self._source = source
        self._archive = archive
        self._segment_ns = round(segment_s * 1e9)
        self._wall_ns = wall_ns
        self._segment: Segment | None = None
        self._number = 0
        self._kept = 0

    @property
    def segment(self) -> Segment | None:
        """The one that is being written."""
        return self._segment

    @property
    def kept(self) -> int:
        """Pictures that are on the disk, in files that play."""
        return self._kept + (self._segment.kept if self._segment else 0)

    @property
    def written(self) -> int:
        """The same and those of the last fragment, which is not complete."""
        return self._kept + (self._segment.written if self._segment else 0)

    def is_due(self, time_ns: int) -> bool:
        """The next segment should begin with the picture of this time."""
        if self._segment is None:
            return True
        most = self._archive.max_segment_bytes
        is_large = most is not None and self._segment.size_bytes > most
        return is_large or time_ns - self._segment.start_ns >= self._segment_ns

    def write(self, picture: EncodedPicture) -> None:
        """Add a picture; without a segment it has to be a keyframe.

        Raises:
            OSError, FFmpegError: the disk says no, or there is no room.
        """
        if self._segment is not None and picture.is_keyframe and self.is_due(picture.time_ns):
            self.finish()
        segment = self._segment or self._begin(picture)
        self._archive.grow(self._number, segment.size_with(picture))
        if segment.write(picture):
            self._archive.check_free()

    def finish(self) -> None:
        """End the segment that is being written. Idempotent.

        Raises:
            OSError, FFmpegError: the disk says no. What was complete plays.
        """
        segment, self._segment = self._segment, None
        if segment is None:
            return
        try:
            segment.finish()
        finally:
            self._kept += segment.kept
            self._archive.end(self._number)

    def _begin(self, first: EncodedPicture) -> Segment:
        self._number, path = self._archive.begin(self._source, self._wall_ns(first.captured_ns))
        try:
            self._segment = Segment(path, first)
        except BaseException:
            self._archive.end(self._number)
            raise
        return self._segment
