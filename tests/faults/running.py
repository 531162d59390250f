"""The run in another process (see `subject.py`), from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any

from tests.processes import children_of

ROOT = Path(__file__).parents[2]
END_S = 5.0
"""Behind SIGTERM."""


class Run:
    """A run of `subject.py`. `port` is its page's.

    Args:
        folder: of its files.
        uris: of its cameras.
    """

    def __init__(self, folder: Path, uris: list[str]) -> None:
        self._folder = folder
        self._uris = uris
        self._changed = threading.Condition()
        self._said: dict[str, Any] = {}
        self._history: list[tuple[float, dict[str, int]]] = []
        self._is_over = False

    def __enter__(self) -> Run:
        self.began_at = monotonic()
        heed = ["env", "--default-signal=INT,TERM"]  # a shell's background job starts with SIGINT ignored
        with (self._folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [*heed, sys.executable, "-m", "tests.faults.subject", self._folder, *self._uris],
                cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port: int = self.wait_for(lambda said: said.get("port"), 60)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(10)
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()

    def order(self, **what: Any) -> None:
        """See `Subject.obey`."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()

    def count(self, source: str) -> int:
        """Results of a source so far."""
        with self._changed:
            return int(self._said.get("counts", {}).get(source, 0))

    def wait_for(self, what: Callable[[dict[str, Any]], Any], timeout_s: float) -> Any:
        """What it says at last."""
        with self._changed:
            self._changed.wait_for(lambda: what(self._said) or self._is_over, timeout_s)
            found = what(self._said)
        assert found, f"it never came; the run says {self._said}, and its log: {self.log()}"
        return found

    def first_after(self, source: str, at: float) -> float:
        """When its first result from then on was reported, by the clock that all processes share; 0 where none was."""
        with self._changed:
            history = list(self._history)
        before = max((counts.get(source, 0) for when, counts in history if when < at), default=0)
        return next((when for when, counts in history if when >= at and counts.get(source, 0) > before), 0.0)

    def children(self) -> list[int]:
        """Ids of its processes."""
        return children_of(self.process.pid)

    def wait_for_result(self, source: str, timeout_s: float, *, more_than: int = 0) -> float:
        """Until another result of a source; returns how long that took, in seconds."""
        started = monotonic()
        self.wait_for(lambda said: said.get("counts", {}).get(source, 0) > more_than, timeout_s)
        return monotonic() - started

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[float, dict[str, Any]]:
        """Send a signal: seconds until the process has ended, and what it said at last."""
        started = monotonic()
        os.kill(self.process.pid, number)
        self.process.wait(30)
        lasted_s = monotonic() - started
        self._reader.join(10)
        return lasted_s, self._said.get("end", {})

    def log(self) -> str:
        """What it logged."""
        return (self._folder / "log").read_text(errors="replace")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self._said |= json.loads(line)
                self._history.append((self._said.get("at", 0.0), self._said.get("counts", {})))
                self._changed.notify_all()
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
