"""`Board`: the newest of every source, written by the sink's thread and read by the page's."""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from vidseg.runtime.clock import Clock
from vidseg.runtime.frame import Image, Segmentation, SourceState, SourceStatus

if TYPE_CHECKING:
    from vidseg.runtime.web.controlled import Controlled

State: TypeAlias = Literal["waiting", "live", "quiet", "paused"] | SourceState
"""`waiting`: it has given nothing yet; `quiet`: nothing comes and nobody says why, such as a file that has ended."""

QUIET_AFTER_NS = 3_000_000_000
"""As long as a result may be out before its picture is called old: more than two periods of a camera at 1 Hz."""

RATE_WINDOW = 64

_NOT_IN_SLUGS = re.compile(r"[^a-z0-9]+")
MAX_SLUG = 48


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """What there is to see of a source.

    Attributes:
        version: grows with each change of picture or status, over all sources.
        segmentation, picture: of the newest result; None where there was none yet. `picture` is (H, W, 3) uint8 BGR.
        received_ns: monotonic time of that result's delivery.
        status: why no result comes, where that was told after the newest result.
    """

    version: int
    segmentation: Segmentation | None = None
    picture: Image | None = None
    received_ns: int = 0
    status: SourceStatus | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SourceView:
    """A source at one instant.

    Attributes:
        id: for addresses: lower case letters, digits and hyphens, the same for the whole run.
        name: for people.
        state: see `State`.
        since_ns: monotonic time of its begin; None while it is live.
        fps: results that came here a second, over the recent ones; 0.0 where none come.
        shown: what there is to see of it.
    """

    id: str
    name: str
    state: State
    since_ns: int | None
    fps: float
    shown: Shown


class Board:
    """Keeps the newest result and word of each source. Every method may be called from any thread.

    Args:
        clock: for the states.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._version = 0
        self._started_ns = clock.now_ns()
        self._ids: dict[str, str] = {}
        self._shown: dict[str, Shown] = {}
        self._received_ns: dict[str, deque[int]] = {}
        self._watchers: dict[str, list[Callable[[], None]]] = {}
        self._controlled: Controlled | None = None

    @property
    def controlled(self) -> Controlled | None:
        """The pipeline; None before `attach`."""
        with self._lock:
            return self._controlled

    def attach(self, controlled: Controlled) -> None:
        """From now on, its sources are the ones that are shown."""
        with self._lock:
            self._controlled = controlled

    def write(self, segmentation: Segmentation, picture: Image) -> None:
        """A new result."""
        name, now_ns = segmentation.frame.source, self._clock.now_ns()
        with self._lock:
            self._version += 1
            self._shown[name] = Shown(self._version, segmentation, picture, now_ns)
            self._received_ns.setdefault(name, deque(maxlen=RATE_WINDOW)).append(now_ns)
            watchers = self._watchers_of(name)
        for wake in watchers:
            wake()

    def notify(self, status: SourceStatus) -> None:
        """Word of a source that gives nothing."""
        with self._lock:
            self._version += 1
            before = self._shown.get(status.source, Shown(0))
            self._shown[status.source] = replace(before, version=self._version, status=status)
            watchers = self._watchers_of(status.source)
        for wake in watchers:
            wake()

    def views(self) -> list[SourceView]:
        """All sources: those that the pipeline has now, or before `attach` those that were heard of."""
        controlled = self.controlled
        names = None if controlled is None else list(controlled.source_names())
        paused = frozenset() if controlled is None else controlled.paused()
        with self._lock:
            if names is not None:  # what was removed is let go
                self._shown = {name: shown for name, shown in self._shown.items() if name in names}
            return [
                self._view(name, is_paused=name in paused) for name in (list(self._shown) if names is None else names)
            ]

    def view(self, source_id: str) -> SourceView | None:
        """One of them; None where there is none of that id."""
        return next((view for view in self.views() if view.id == source_id), None)

    def shown(self, name: str) -> Shown:
        """What there is to see of a source."""
        with self._lock:
            return self._shown.get(name, Shown(0))

    @contextmanager
    def watched(self, name: str, wake: Callable[[], None]) -> Iterator[None]:
        """Have `wake` called, in the thread that writes, at each change of a source. It returns at once."""
        with self._lock:
            watchers = self._watchers.setdefault(name, [])
            watchers.append(wake)
        try:
            yield
        finally:
            with self._lock:
                watchers.remove(wake)

    def _watchers_of(self, name: str) -> tuple[Callable[[], None], ...]:
        return tuple(self._watchers.get(name, ()))

    def _view(self, name: str, *, is_paused: bool) -> SourceView:
        shown = self._shown.get(name, Shown(0))
        state, since_ns = self._state(shown)
        if is_paused:
            state, since_ns = "paused", None
        return SourceView(self._id_of(name), name, state, since_ns, self._fps(name), shown)

    def _state(self, shown: Shown) -> tuple[State, int | None]:
        if shown.status is not None:
            return shown.status.state, shown.status.since_ns
        if shown.segmentation is None:
            return "waiting", self._started_ns
        if self._clock.now_ns() - shown.received_ns > QUIET_AFTER_NS:
            return "quiet", shown.received_ns
        return "live", None

    def _fps(self, name: str) -> float:
        oldest_ns = self._clock.now_ns() - QUIET_AFTER_NS
        times = [time_ns for time_ns in self._received_ns.get(name, ()) if time_ns >= oldest_ns]
        span_ns = times[-1] - times[0] if times else 0
        return (len(times) - 1) * 1e9 / span_ns if span_ns else 0.0

    def _id_of(self, name: str) -> str:
        if name not in self._ids:
            slug = (
                _NOT_IN_SLUGS.sub("-", name.rpartition("://")[2].lower()).strip("-")[:MAX_SLUG].strip("-") or "source"
            )
            taken, number, candidate = set(self._ids.values()), 1, slug
            while candidate in taken:
                number += 1
                candidate = f"{slug}-{number}"
            self._ids[name] = candidate
        return self._ids[name]
