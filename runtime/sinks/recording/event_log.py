"""The log of a source's events: what began and ended when, and in which file, beside the segments."""

from __future__ import annotations

from pathlib import Path

from vidseg.runtime.sinks.line_file import LineFile

NAME = "events.jsonl"

MAX_BYTES = 8 << 20
"""A larger file becomes `events.jsonl.1`, in place of the one before."""


def event_log(folder: Path) -> LineFile:
    """The one in a folder of segments, which has to be there at the first line. Each line is on the disk at once."""
    return LineFile(folder / NAME, MAX_BYTES, keep=1, is_synced=True)
