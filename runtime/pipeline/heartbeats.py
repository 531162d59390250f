"""Telling sinks of a source that gives nothing: silence is a result too."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from vidseg.runtime.clock import Clock
from vidseg.runtime.frame import SourceState, SourceStatus


class Heartbeats:
    """Knows since when each live source has given nothing.

    Args:
        sources: names of the live ones; recorded ones wait for us, not we for them.
        interval_ms: how long a source may be silent before it is told, and how often it is told again.
        clock: for the times.
        has_in_flight: whether results of a source may still come.
    """

    def __init__(
        self,
        sources: Iterable[str],
        interval_ms: float,
        clock: Clock,
        has_in_flight: Callable[[str], bool] = lambda _source: False,
    ) -> None:
        self._has_in_flight = has_in_flight
        self._removed: set[str] = set()
        self._interval_ns = round(interval_ms * 1e6)
        self._clock = clock
        self._lock = threading.Lock()
        now_ns = clock.now_ns()
        self._states: dict[str, tuple[SourceState, int]] = dict.fromkeys(sources, ("opening", now_ns))
        self._told_ns = dict.fromkeys(self._states, now_ns)

    @property
    def interval_s(self) -> float | None:
        """How often `due` has to be asked; None where there is nothing to tell."""
        with self._lock:
            return self._interval_ns / 1e9 if self._states or self._removed else None

    def add(self, source: str) -> None:
        """One more live source."""
        with self._lock:
            self._states[source] = ("opening", self._clock.now_ns())
            self._told_ns[source] = self._clock.now_ns()
            self._removed.discard(source)

    def paused(self, source: str) -> None:
        """A source is closed until it is wanted again."""
        self._set(source, "paused")

    def wanted(self, source: str) -> None:
        """A source that was paused is opened again."""
        with self._lock:
            found = self._states.get(source)
            if found is not None and found[0] == "paused":
                self._states[source] = ("opening", self._clock.now_ns())

    def state(self, source: str) -> SourceState | None:
        """What a live source does, `silent` while it gives frames too; None for others."""
        with self._lock:
            found = self._states.get(source)
            return None if found is None else found[0]

    def frame(self, source: str) -> None:
        """A source gave a frame."""
        self._set(source, "silent")

    def lost(self, source: str, *, refused: bool = False) -> None:
        """A source has failed, or says no; since when, is told from the first time on."""
        with self._lock:
            before = self._states.get(source)
            state: SourceState = "refused" if refused else "lost"
            if before is not None:
                since_ns = before[1] if before[0] in {"lost", "refused"} else self._clock.now_ns()
                self._states[source] = (state, since_ns)

    def ended(self, source: str) -> None:
        """A source has ended as it should; nothing more is expected of it. A lost one stays lost."""
        with self._lock:
            if source in self._states and self._states[source][0] not in {"lost", "refused"}:
                del self._states[source]

    def removed(self, source: str) -> None:
        """A source is not to be heard of any more, but for that, behind the last of its results."""
        with self._lock:
            self._states.pop(source, None)
            self._removed.add(source)

    def due(self) -> list[SourceStatus]:
        """What has to be told now: sources that were removed, or silent for an interval and not told for one."""
        now_ns = self._clock.now_ns()
        with self._lock:
            gone = {source for source in self._removed if not self._has_in_flight(source)}
            self._removed -= gone
            due = [SourceStatus(source, "removed", now_ns) for source in sorted(gone)]
            for source, (state, since_ns) in self._states.items():
                if now_ns - max(since_ns, self._told_ns[source]) >= self._interval_ns:
                    self._told_ns[source] = now_ns
                    due.append(SourceStatus(source, state, since_ns))
        return due

    def _set(self, source: str, state: SourceState) -> None:
        with self._lock:
            if source in self._states:
                self._states[source] = (state, self._clock.now_ns())
