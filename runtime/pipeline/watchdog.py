"""Noticing what never returns: a thread in a library's call cannot be ended, only the process can."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from vidseg.runtime.clock import Clock
from vidseg.runtime.errors import EngineError

log = logging.getLogger(__name__)

NEEDED = {"infer": "inference", "render": "drawing"}
"""Stages without which there are no results, and what they do."""


class Watchdog:
    """Knows since when each stage has been at one piece of work.

    A hang of what all results go through ends the run. One of a sink, or of a file that is read, is told, once, and
    shown in the statistics: everything else goes on beside it.

    Args:
        hang_s: how long one piece may take; None: for ever.
        clock: for the times.
    """

    def __init__(self, hang_s: float | None, clock: Clock) -> None:
        self._hang_s = hang_s
        self._clock = clock
        self._lock = threading.Lock()
        self._since_ns: dict[str, int] = {}
        self._told: set[str] = set()

    @property
    def interval_s(self) -> float | None:
        """How often `check` has to be called; None where it never finds anything."""
        return None if self._hang_s is None else self._hang_s / 4

    @property
    def hanging(self) -> tuple[str, ...]:
        """Stages that were found to hang, and still do."""
        with self._lock:
            return tuple(sorted(self._told))

    @contextmanager
    def working(self, stage: str) -> Iterator[None]:
        """Around a call that has to return."""
        began_ns = self._clock.now_ns()
        with self._lock:
            self._since_ns[stage] = began_ns
        try:
            yield
        finally:
            with self._lock:
                del self._since_ns[stage]
                was_told = stage in self._told
                self._told.discard(stage)
            if was_told:
                log.warning("%s goes on after %.0f s", stage, (self._clock.now_ns() - began_ns) / 1e9)

    def check(self) -> EngineError | None:
        """What ends the run, if anything does."""
        if self._hang_s is None:
            return None
        for stage, busy_s in self._hangs(self._hang_s):
            if stage in NEEDED:
                mend = "The run ends: the library's call cannot. Start it again."
                return EngineError(f"{NEEDED[stage]} hangs", f"nothing for {busy_s:.0f} s", mend)
            log.warning("%s hangs: it has been at one piece of work for %.0f s. Live sources go on.", stage, busy_s)
        return None

    def _hangs(self, hang_s: float) -> list[tuple[str, float]]:
        """Those that were not told before, with the seconds so far."""
        now_ns = self._clock.now_ns()
        with self._lock:
            busy = {stage: (now_ns - since_ns) / 1e9 for stage, since_ns in self._since_ns.items()}
            found = [(stage, busy_s) for stage, busy_s in busy.items() if busy_s >= hang_s and stage not in self._told]
            self._told |= {stage for stage, _ in found if stage not in NEEDED}
        return found
