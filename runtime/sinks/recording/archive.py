"""`Archive`: the segments on the disk, their numbers, and the room that they may take."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from vidseg.runtime.errors import SinkError
from vidseg.runtime.sinks.recording.names import folder_name_of, segment_name_of, segment_number_of
from vidseg.runtime.sinks.recording.repair import cut_to_complete, is_finished
from vidseg.runtime.sinks.recording.segment import sync_folder

log = logging.getLogger(__name__)

LOCK = ".recording.lock"

RESUME_FACTOR = 1.1
RESUME_BYTES = 512 << 10
"""A recording that stopped for want of room goes on where there is so much more than the least, and than it left: what
it gives back itself when it stops is no new room."""

FULL_BYTES = 64 << 20
"""A disk that has more free bytes is not full: something else said no."""


@dataclass(slots=True)
class Stored:
    """A segment's file.

    Attributes:
        path: of the file.
        size_bytes: of the file; of one that is written, what it will be at most.
        is_open: it is being written.
    """

    path: Path
    size_bytes: int
    is_open: bool = False


class Archive:
    """A folder with a folder of segments for each source. Its lock keeps other recordings out.

    Args:
        folder: made where it is missing; the folder that it lies in has to be there.
        quota_bytes: of all segments together; None: nothing is deleted.
        min_free_bytes: has to stay free on the disk.

    Attributes:
        was_open: the folder could be used at least once, whether or not there was room.
    """

    def __init__(self, folder: Path, quota_bytes: int | None, min_free_bytes: int) -> None:
        self._folder = folder
        self._quota_bytes = quota_bytes
        self._min_free_bytes = min_free_bytes
        self._stored: dict[int, Stored] = {}
        self._resume_bytes = min_free_bytes
        self._next_number = 1
        self.was_open = False
        self._lock = -1

    @property
    def size_bytes(self) -> int:
        """Of all segments, those that are written included."""
        return sum(stored.size_bytes for stored in self._stored.values())

    @property
    def max_segment_bytes(self) -> int | None:
        """What one segment may grow to: those that are written take half of the quota at most."""
        writing = sum(stored.is_open for stored in self._stored.values())
        return None if self._quota_bytes is None else self._quota_bytes // (2 * max(writing, 1))

    def open(self) -> None:
        """Take the folder, see what is there, and cut unfinished segments to what is complete. Again after trouble.

        Raises:
            OSError: the folder cannot be used, or there is no room.
            SinkError: another run records there.
        """
        self._folder.mkdir(exist_ok=True)
        self._take_lock()
        self._scan()
        newest: dict[Path, int] = {}
        for number, stored in self._stored.items():
            newest[stored.path.parent] = max(number, newest.get(stored.path.parent, 0))
        for number in newest.values():
            self._recognize(self._stored[number])
        for part in self._folder.glob("*/.*.mp4.*.part"):  # begun, and ended before its first second was complete
            part.unlink(missing_ok=True)
        self.was_open = True
        self._need(self._resume_bytes)
        self._resume_bytes = self._min_free_bytes

    def stop(self, error: Exception) -> None:
        """Nothing is written any more because of this; `open` will see whether it is over."""
        self._resume_bytes = self._min_free_bytes
        with contextlib.suppress(OSError):
            free = self._free_bytes()
            if getattr(error, "errno", None) == errno.ENOSPC and free < self._min_free_bytes + FULL_BYTES:
                self._resume_bytes = max(round(self._min_free_bytes * RESUME_FACTOR), free + RESUME_BYTES)

    def begin(self, source: str, wall_ns: int) -> tuple[int, Path]:
        """Number and path of a new segment, larger than every number before, of a name that nothing has.

        Raises:
            OSError: there is no room, or the folder cannot be made.
        """
        self.check_free()
        number = self._next_number
        path = self.folder_of(source) / segment_name_of(number, wall_ns)
        self._next_number += 1
        self._stored[number] = Stored(path, 0, is_open=True)
        return number, path

    def folder_of(self, source: str) -> Path:
        """Where a source's files are; made where it is missing.

        Raises:
            OSError: it cannot be made.
        """
        folder = self._folder / folder_name_of(source)
        if not folder.is_dir():
            folder.mkdir(exist_ok=True)
            sync_folder(self._folder)
        return folder

    def grow(self, number: int, size_bytes: int) -> None:
        """A segment that is written is about to have this size at most: make room for it.

        Raises:
            OSError: there is none.
        """
        stored = self._stored[number]
        if self._quota_bytes is not None:
            more = size_bytes - stored.size_bytes
            if self.size_bytes + more > self._quota_bytes:
                self._scan()  # a person may have deleted some
            while self.size_bytes + more > self._quota_bytes:
                self._delete_oldest()
        stored.size_bytes = size_bytes

    def end(self, number: int) -> None:
        """A segment is not written any more. Its name is on the disk, or there is no such file.

        Raises:
            OSError: the disk says no.
        """
        stored = self._stored[number]
        stored.is_open = False
        try:
            stored.size_bytes = stored.path.stat().st_size
            sync_folder(stored.path.parent)
        except FileNotFoundError:
            del self._stored[number]

    def check_free(self) -> None:
        """See whether enough of the disk is free.

        Raises:
            OSError: it is not.
        """
        self._need(self._min_free_bytes)

    def close(self) -> None:
        """Let others record here. Idempotent."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _take_lock(self) -> None:
        self.close()
        self._lock = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise SinkError(f"{self._folder}: another run records there", "", "Name another folder.") from None

    def _scan(self) -> None:
        writing = {number: stored for number, stored in self._stored.items() if stored.is_open}
        self._stored = {}
        with os.scandir(self._folder) as folders:
            paths = sorted(Path(entry.path) for entry in folders if entry.is_dir(follow_symlinks=False))
        for path in paths:
            self._stored |= _segments_in(path)
        self._stored |= writing
        self._next_number = max(self._next_number, max(self._stored, default=0) + 1)

    def _delete_oldest(self) -> None:
        finished = [number for number, stored in self._stored.items() if not stored.is_open]
        if not finished:
            raise OSError(errno.EDQUOT, "the quota is less than what is being written")
        oldest = self._stored.pop(min(finished))
        oldest.path.unlink(missing_ok=True)
        log.debug("%s: deleted for the quota", oldest.path)

    def _need(self, least_bytes: int) -> None:
        free = self._free_bytes()
        if free < least_bytes:
            raise OSError(errno.ENOSPC, f"only {free / 2**20:.0f} MiB are free")

    def _free_bytes(self) -> int:
        disk = os.statvfs(self._folder)
        return disk.f_bavail * disk.f_frsize

    def _recognize(self, stored: Stored) -> None:
        if stored.is_open or is_finished(stored.path):
            return
        lost = cut_to_complete(stored.path)
        stored.size_bytes -= lost
        if lost or not self.was_open:
            log.warning("%s was not finished; what was complete plays (%d bytes were cut off)", stored.path, lost)


def _segments_in(folder: Path) -> dict[int, Stored]:
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            number = segment_number_of(entry.name)
            if number is not None and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(FileNotFoundError):  # a person deletes some
                    found[number] = Stored(Path(entry.path), entry.stat(follow_symlinks=False).st_size)
    return found
