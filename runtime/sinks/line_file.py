"""`LineFile`: lines of JSON, whole ones only, in a file that is cut into old ones before it grows too large."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from io import FileIO
from itertools import pairwise
from pathlib import Path


class LineFile:
    """Appends lines to a file, which is opened for each: what somebody moves away begins anew. Earlier lines stay.

    Args:
        path: of the file; its folder has to be there at the first `append`.
        max_bytes: one that would grow larger becomes `NAME.1`, the one before `NAME.2`, and so on.
        keep: how many of the old ones are kept; the one behind the last is deleted.
        is_synced: each line is on the disk when `append` returns.
    """

    def __init__(self, path: Path, max_bytes: int, keep: int, *, is_synced: bool = False) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._is_synced = is_synced

    def append(self, document: Mapping[str, object]) -> None:
        """Write a line. What a process that was killed has left of one gets an end: this one is on a line of its own.

        Raises:
            OSError: the disk says no; nothing of the line is in the file.
        """
        line = json.dumps(document, separators=(",", ":")).encode() + b"\n"
        size_bytes = self._path.stat().st_size if self._path.exists() else 0
        if size_bytes and size_bytes + len(line) > self._max_bytes:
            self._rotate()
        with self._path.open("a+b", buffering=0) as file:
            self._write(file, line)

    def _write(self, file: FileIO, line: bytes) -> None:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            line = line if file.read(1) == b"\n" else b"\n" + line
        try:
            left = memoryview(line)
            while left:
                left = left[file.write(left) :]
            if self._is_synced:
                os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                file.truncate(end)
            raise

    def _rotate(self) -> None:
        names = [self._path, *(self._path.with_name(f"{self._path.name}.{n + 1}") for n in range(self._keep))]
        if not self._keep:
            self._path.unlink()
        for newer, older in reversed(list(pairwise(names))):
            with suppress(FileNotFoundError):
                newer.replace(older)
