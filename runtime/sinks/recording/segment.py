"""`Segment`: one file of a recording."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from vidseg.runtime.sinks.fragments import FragmentFile
from vidseg.runtime.sinks.recording.packets import EncodedPicture, add_video, packet_of

CONTAINER_OPTIONS = {
    # A fragment is what lies between two keyframes, a second; the end turns the file into a plain MP4.
    "movflags": "hybrid_fragmented+empty_moov+frag_keyframe+default_base_moof",
    "flush_packets": "1",
}

OVERHEAD_BYTES = 4096
PICTURE_OVERHEAD_BYTES = 64
"""More than what MP4 adds to a file and to a picture: 28 bytes were measured in fragments and final index together."""


class Segment:
    """Writes pictures to a new file. What a fragment's end has completed is on the disk and plays, whatever comes.

    Args:
        path: of a file that is not there.
        first: a keyframe, at which the file's time begins; it is not written yet.

    Attributes:
        start_ns: time of the first picture on the source's time line.
        size_bytes: of the file at most, with all that was written.
        written: pictures so far.
        kept: those of them that are on the disk and play.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, path: Path, first: EncodedPicture) -> None:
        import av

        self.path = path
        self.size_bytes = OVERHEAD_BYTES
        self.written = 0
        self.kept = 0
        self.start_ns = first.time_ns
        self._start_pts = first.pts
        self._has_header = False
        self._is_closed = False
        self._file = FragmentFile(path)
        try:
            self._container = av.open(self._file, "w", format="mp4", options=CONTAINER_OPTIONS)
            self._stream = add_video(self._container, first)
        except BaseException:
            self._file.close()
            raise

    def size_with(self, picture: EncodedPicture) -> int:
        """What the file will have at most with one more picture, in bytes."""
        return self.size_bytes + len(picture.data) + PICTURE_OVERHEAD_BYTES

    def write(self, picture: EncodedPicture) -> bool:
        """Add a picture; True where one or more fragments have become complete.

        Raises:
            OSError, FFmpegError: the disk says no. The file keeps what was complete.
        """
        self.size_bytes = self.size_with(picture)
        self._container.mux(packet_of(picture, self._stream, self._start_pts))
        before = self.written
        self.written += 1
        if not self._file.keep():
            return False
        if self._has_header:
            self._file.sync()
            if not self._file.is_published:
                self._file.publish()
                sync_folder(self.path.parent)
            self.kept = before
        self._has_header = True
        return self.kept == before

    def finish(self) -> None:
        """Turn the file into a plain MP4, and have all of it on the disk. Idempotent, as `close`.

        Raises:
            OSError, FFmpegError: the disk says no. The file keeps what was complete.
        """
        if self._is_closed:
            return
        try:
            self._file.check()
            self._container.close()
            self._file.finish()
            self._file.sync()
            self.kept = self.written
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the file as it is."""
        from av import FFmpegError

        if self._is_closed:
            return
        self._is_closed = True
        with contextlib.suppress(OSError, FFmpegError):
            self._container.close()
        self._file.close()


def sync_folder(folder: Path) -> None:
    """Names of new files survive a loss of power.

    Raises:
        OSError: the disk says no.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
