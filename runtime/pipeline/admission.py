"""Keeping recorded frames back until every sink has room for their results."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

from vidseg.runtime.pipeline.ports import Port


class Admission:
    """In a pipeline with live and recorded sources, one thread hands over the results of both.

    It must not wait for a slow sink with a recorded result while live ones grow old: so a recorded frame is inferred
    only once its result fits.

    Args:
        recorded: names of the recorded sources; none where there are no live ones beside them, and nothing to protect.
        ports: where results go.
    """

    def __init__(self, recorded: Collection[str], ports: Collection[Port]) -> None:
        self._recorded = frozenset(recorded)
        self._ports = ports
        self._lock = threading.Lock()
        self._under_way = 0
        self.on_done: Callable[[], None] = lambda: None

    def may_take(self, source: str) -> bool:
        """True where a frame of the source may be inferred now."""
        if source not in self._recorded:
            return True
        with self._lock:
            under_way = self._under_way
        return all(port.spare > under_way for port in self._ports)

    def taken(self, source: str) -> None:
        """A frame is on its way to the engine."""
        self._count(source, 1)

    def done(self, source: str) -> None:
        """Its result was offered to every port, or it was dropped."""
        self._count(source, -1)
        self.on_done()

    def _count(self, source: str, change: int) -> None:
        if source in self._recorded:
            with self._lock:
                self._under_way += change
