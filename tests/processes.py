"""Child processes of the tests' own, as Linux lists them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def children_running(module: str) -> list[int]:
    """Process ids of children whose command line names a module. What has just ended is none."""
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            listed = [int(child) for child in (task / "children").read_text().split()]
            found += [child for child in listed if module.encode() in _command_line(child)]
    return found


def _command_line(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
