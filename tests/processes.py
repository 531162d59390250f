"""Child processes of the tests' own, as Linux lists them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def children_running(module: str) -> list[int]:
    """Process ids of children whose command line names a module. What has just ended is none."""
    return [child for child in children_of("self") if module.encode() in _command_line(child)]


def children_of(process: int | str) -> list[int]:
    """Process ids of all children of a process. A thread of it that has just ended has none."""
    found: list[int] = []
    for task in Path(f"/proc/{process}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def _command_line(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
