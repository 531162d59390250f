"""Names of folders and files: safe, in order, and never used twice."""

from __future__ import annotations

import hashlib
import re

from vidseg.runtime.sinks.wall_time import utc_of

_SEGMENT = re.compile(r"(\d{8,12})_\d{8}T\d{6}Z\.mp4")
_UNSAFE = re.compile(r"[^A-Za-z0-9.-]+")

MAX_FOLDER = 64


def folder_name_of(source: str) -> str:
    """A folder's name for a source, the same in every run: `front` stays, `cam/2` gives `cam_2-` and six digits more.

    The digits are those of the name's SHA-256: two sources never share a folder.
    """
    name = _UNSAFE.sub("_", source).strip("._-")[:MAX_FOLDER]
    return name if name == source else f"{name or 'source'}-{hashlib.sha256(source.encode()).hexdigest()[:6]}"


def segment_name_of(number: int, wall_ns: int) -> str:
    """`00000012_20260102T030405Z.mp4`: the number, which gives the order whatever the clock does, and the start."""
    return f"{number:08d}_{utc_of(wall_ns):%Y%m%dT%H%M%SZ}.mp4"


def segment_number_of(name: str) -> int | None:
    """The number of a segment's file; None for any other file."""
    found = _SEGMENT.fullmatch(name)
    return int(found[1]) if found else None
