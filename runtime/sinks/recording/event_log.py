"""`EventLog`: what began and ended when, and in which file, as lines of JSON beside the segments."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

NAME = "events.jsonl"

MAX_BYTES = 8 << 20
"""A larger file becomes `events.1.jsonl`, in place of the one before."""


class EventLog:
    """Appends lines, each on the disk when `append` returns. Lines of earlier runs stay.

    Args:
        folder: of a source's segments; it has to be there at the first `append`.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME

    def append(self, document: dict[str, Any]) -> None:
        """Write a line.

        Raises:
            OSError: the disk says no. What it left of a line is on a line of its own.
        """
        line = json.dumps(document, separators=(",", ":")).encode() + b"\n"
        if self._path.exists() and self._path.stat().st_size > MAX_BYTES:
            self._path.replace(self._path.with_name("events.1.jsonl"))
        with self._path.open("a+b", buffering=0) as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else b"\n" + line
            written = file.write(line) or 0
            if written < len(line):
                file.write(line[written:])
            os.fsync(file.fileno())
