"""Segments that were not finished: how one is told, and what of it is complete.

An MP4 file is a row of boxes, each with its size and kind (ISO 14496-12, section 4.2). While it is written, a segment
is `ftyp`, `moov`, and pairs of `moof` and `mdat`; the end turns all of it into one `mdat` with a `moov` behind it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_HEADER = struct.Struct(">I4s")
_LARGE = struct.Struct(">Q")


def is_finished(path: Path) -> bool:
    """True where the file is no longer a row of fragments, or nothing of ours.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        kinds = [kind for kind, _ in _boxes(file)]
    return b"moof" not in kinds and kinds[-1:] == [b"moov"] and b"mdat" in kinds


def cut_to_complete(path: Path) -> int:
    """Cut off what a crash left behind the last complete fragment; returns how many bytes that were.

    Raises:
        OSError: it cannot be read or changed.
    """
    complete = 0
    with path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        for kind, end in _boxes(file):
            if end > size:
                break
            if kind == b"mdat" or (kind == b"moov" and not complete):  # the last one is the index of a finished file
                complete = end
        file.truncate(complete)
        os.fsync(file.fileno())
    return size - complete


def _boxes(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Kind and end of each box, the last one perhaps behind the end of the file; nothing behind one that is damaged."""
    place = 0
    while len(header := file.read(_HEADER.size)) == _HEADER.size:
        size, kind = _HEADER.unpack(header)
        if size == 1:
            large = file.read(_LARGE.size)
            size = _LARGE.unpack(large)[0] if len(large) == _LARGE.size else 0
        if size < _HEADER.size:
            return
        place += size
        yield kind, place
        file.seek(place)
