"""`Board`: the newest of every source, written by the sink's thread and read by the page's."""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from vidseg.runtime.clock import Clock
from vidseg.runtime.frame import Image, Segmentation, SourceState, SourceStatus

if TYPE_CHECKING:
    from vidseg.runtime.web.controlled import Controlled

State: TypeAlias = Literal["waiting", "live", "quiet"] | SourceState
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
        segmentation: the newest result; None where there was none yet.
        picture: of it, (H, W, 3) uint8 BGR; None where it was not drawn, because nobody watched.
        received_ns: monotonic time of that result's delivery.
        status: why no result comes, where that was told after the newest result.
    """

    version: int
    segmentation: Segmentation | None = None
    picture: Image | None = None
    received_ns: int = 0
    status: SourceStatus | None = None


_NOTHING = Shown(0)


@dataclass(frozen=True, slots=True, eq=False)
class SourceView:
    """A source at one instant.

    Attributes:
        id: for addresses: lower case letters, digits and hyphens, the same until it is removed.
        name: for people.
        generation: another one where it was removed and has come back.
        state: see `State`.
        since_ns: monotonic time of its begin; None while it is live, and where it is not known.
        fps: results that came here a second, over the recent ones; 0.0 where none come.
        shown: what there is to see of it.
    """

    id: str
    name: str
    generation: int
    state: State
    since_ns: int | None
    fps: float
    shown: Shown


@dataclass(slots=True, eq=False)
class Watch:
    """Somebody who watches a source.

    Attributes:
        wake: called at each change, in the thread that writes; returns at once.
        has_ended: the source was removed: nothing comes any more.
    """

    wake: Callable[[], None]
    has_ended: bool = False


@dataclass(slots=True, eq=False)
class _Known:
    """All that is kept of a source until it is removed."""

    id: str
    generation: int
    shown: Shown = _NOTHING
    received_ns: deque[int] = field(default_factory=lambda: deque(maxlen=RATE_WINDOW))


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
        self._known: dict[str, _Known] = {}
        self._watches: dict[str, list[Watch]] = {}
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

    def write(self, segmentation: Segmentation, picture: Image | None) -> None:
        """A new result."""
        name, now_ns = segmentation.frame.source, self._clock.now_ns()
        with self._lock:
            known = self._known_of(name)
            self._version += 1
            known.shown = Shown(self._version, segmentation, picture, now_ns)
            known.received_ns.append(now_ns)
            watches = self._watches_of(name)
        _wake(watches)

    def notify(self, status: SourceStatus) -> None:
        """Word of a source that gives nothing; of one that was removed, nothing is kept, and who watches it is told."""
        name = status.source
        with self._lock:
            if status.state == "removed":
                watches = self._forget(name)
            else:
                known = self._known_of(name)
                self._version += 1
                known.shown = replace(known.shown, version=self._version, status=status)
                watches = self._watches_of(name)
        _wake(watches)

    def views(self) -> list[SourceView]:
        """All sources: those that the pipeline has now, or before `attach` those that were heard of."""
        controlled = self.controlled
        names = None if controlled is None else list(controlled.source_names())
        paused = None if controlled is None else controlled.paused()
        ended: tuple[Watch, ...] = ()
        with self._lock:
            if names is not None:  # a result that was on its way when its source was removed is not kept either
                for name in self._known.keys() - set(names):
                    ended += self._forget(name)
            views = [self._view(name, paused) for name in (list(self._known) if names is None else names)]
        _wake(ended)
        return views

    def view(self, source_id: str) -> SourceView | None:
        """One of them; None where there is none of that id."""
        return next((view for view in self.views() if view.id == source_id), None)

    def shown(self, name: str) -> Shown:
        """What there is to see of a source."""
        with self._lock:
            known = self._known.get(name)
            return _NOTHING if known is None else known.shown

    @contextmanager
    def watched(self, name: str, wake: Callable[[], None]) -> Iterator[Watch]:
        """Have `wake` called, in the thread that writes, at each change of a source, and when it was removed."""
        watch = Watch(wake)
        with self._lock:
            watch.has_ended = name not in self._known
            self._watches.setdefault(name, []).append(watch)
        try:
            yield watch
        finally:
            with self._lock:
                watches = self._watches.get(name, [])
                if watch in watches:
                    watches.remove(watch)
                if not watches:
                    self._watches.pop(name, None)

    def _watches_of(self, name: str) -> tuple[Watch, ...]:
        return tuple(self._watches.get(name, ()))

    def _forget(self, name: str) -> tuple[Watch, ...]:
        """Keep nothing of a source; returns who has to be woken."""
        self._known.pop(name, None)
        watches = tuple(self._watches.pop(name, ()))
        for watch in watches:
            watch.has_ended = True
        return watches

    def _view(self, name: str, paused: frozenset[str] | None) -> SourceView:
        known = self._known_of(name)
        state, since_ns = self._state(known.shown)
        if paused is not None and name in paused:
            state, since_ns = "paused", since_ns if state == "paused" else None
        elif paused is not None and state == "paused":  # it goes on, and nobody has said so yet
            state, since_ns = "opening", None
        return SourceView(known.id, name, known.generation, state, since_ns, self._fps(known), known.shown)

    def _state(self, shown: Shown) -> tuple[State, int | None]:
        if shown.status is not None:
            return shown.status.state, shown.status.since_ns
        if shown.segmentation is None:
            return "waiting", self._started_ns
        if self._clock.now_ns() - shown.received_ns > QUIET_AFTER_NS:
            return "quiet", shown.received_ns
        return "live", None

    def _fps(self, known: _Known) -> float:
        oldest_ns = self._clock.now_ns() - QUIET_AFTER_NS
        times = [time_ns for time_ns in known.received_ns if time_ns >= oldest_ns]
        span_ns = times[-1] - times[0] if times else 0
        return (len(times) - 1) * 1e9 / span_ns if span_ns else 0.0

    def _known_of(self, name: str) -> _Known:
        if name not in self._known:
            self._version += 1
            self._known[name] = _Known(self._free_id(name), self._version)
        return self._known[name]

    def _free_id(self, name: str) -> str:
        slug = _NOT_IN_SLUGS.sub("-", name.rpartition("://")[2].lower()).strip("-")[:MAX_SLUG].strip("-") or "source"
        taken, number, candidate = {known.id for known in self._known.values()}, 1, slug
        while candidate in taken:
            number += 1
            candidate = f"{slug}-{number}"
        return candidate


def _wake(watches: Iterable[Watch]) -> None:
    for watch in watches:
        watch.wake()
