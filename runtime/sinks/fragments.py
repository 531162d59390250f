"""`FragmentFile`: a file that is complete at every instant, for a writer that appends whole fragments."""

from __future__ import annotations

import os
from io import FileIO
from pathlib import Path


class FragmentFile:
    """A binary file for a muxer to write to: what an error cuts off is taken back.

    It begins under a hidden name; `publish` gives it its own and replaces what was there. Once a write has failed, the
    file is cut back to the last `keep()` and every further write fails as well. Changes of what was kept wait for
    `finish()`: a muxer ignores errors in its last writes, and would mark a file as finished that is not.

    Args:
        path: where it appears.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path = Path(os.path.realpath(path))  # a link stays one: the recording goes where it leads
        self._part = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._file = FileIO(self._part, "w")
        self._kept = 0
        self._end = 0
        self._changes: list[tuple[int, bytes]] = []
        self.is_published = False
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write all of `data` at the current place.

        Raises:
            OSError: it did not work, now or before.
        """
        self.check()
        place = self._file.tell()
        if place < self._kept:
            self._changes.append((place, bytes(data)))
            self._file.seek(place + len(data))
            return len(data)
        try:
            self._write_all(data)
        except OSError as error:
            self.error = error
            self._file.truncate(self._kept)
            raise
        self._end = max(self._end, place + len(data))
        return len(data)

    def check(self) -> None:
        """Raise the error of a failed `write`, where there was one.

        Raises:
            OSError: see there.
        """
        if self.error is not None:
            raise self.error

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As `io.IOBase.seek`."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As `io.IOBase.tell`."""
        return self._file.tell()

    def keep(self) -> bool:
        """What has been written is complete; True where that is more than at the last call."""
        has_grown = self._end > self._kept
        self._kept = self._end
        return has_grown

    def finish(self) -> None:
        """The muxer has ended without an error: make the changes that had to wait, and publish.

        What the changes rely on is on the disk before them, so that a loss of power leaves one or the other.

        Raises:
            OSError: it did not work, now or before.
        """
        self.check()
        self.sync()
        for place, data in self._changes:
            self._file.seek(place)
            self._write_all(data)
        self.publish()

    def sync(self) -> None:
        """What has been written survives a loss of power.

        Raises:
            OSError: the disk says no.
        """
        os.fdatasync(self._file.fileno())

    def publish(self) -> None:
        """Give the file its name. Idempotent.

        Raises:
            OSError: it cannot be renamed.
        """
        if not self.is_published:
            self._part.replace(self._path)
            self.is_published = True

    def close(self) -> None:
        """Close the file, and delete it where it was never published. Idempotent."""
        self._file.close()
        if not self.is_published:
            self._part.unlink(missing_ok=True)

    def _write_all(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) or 0 :]
