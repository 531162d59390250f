"""The pipeline's books: where every frame is, and where every result went.

For the frames, `captured = resolved + sum(dropped) + in_flight`; for each sink,
`offered = written + dropped + failed + queued`. Both hold at every instant, because each step is one change under one
lock, and a frame that is booked twice is an error.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from vidseg.runtime.frame import Frame

DropCause: TypeAlias = Literal["missed", "replaced", "over_age", "bad_frame", "failed", "stopped"]
FrameKey: TypeAlias = tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class SinkAccount:
    """What became of the results offered to one sink."""

    offered: int = 0
    written: int = 0
    dropped: int = 0
    failed: int = 0
    queued: int = 0

    @property
    def balanced(self) -> bool:
        """True unless a result is lost or counted twice."""
        return self.offered == self.written + self.dropped + self.failed + self.queued


@dataclass(frozen=True, slots=True)
class LedgerSnapshot:
    """The books at one instant. `dropped` is by cause, `sinks` by name."""

    captured: int
    resolved: int
    in_flight: int
    dropped: dict[str, int] = field(default_factory=dict)
    sinks: dict[str, SinkAccount] = field(default_factory=dict)

    @property
    def balanced(self) -> bool:
        """True unless a frame or a result is lost or counted twice."""
        frames = self.captured == self.resolved + sum(self.dropped.values()) + self.in_flight
        return frames and all(account.balanced for account in self.sinks.values())


class Ledger:
    """Counts under one lock; every method is one step and may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._captured = 0
        self._resolved = 0
        self._dropped: Counter[str] = Counter()
        self._in_flight: set[FrameKey] = set()
        self._sinks: dict[str, Counter[str]] = {}

    def capture(self, frame: Frame) -> None:
        """A source gave a frame."""
        with self._lock:
            key = _key(frame)
            if key in self._in_flight:
                raise ValueError(f"frame {key} was captured twice")
            self._captured += 1
            self._in_flight.add(key)

    def capture_bad(self) -> None:
        """A source gave a frame that cannot be used."""
        with self._lock:
            self._captured += 1
            self._dropped["bad_frame"] += 1

    def miss(self, count: int) -> None:
        """A live source took frames while nobody read: the numbers of its frames have a gap."""
        with self._lock:
            self._captured += count
            self._dropped["missed"] += count

    def has_in_flight(self, source: str) -> bool:
        """True while a frame of a source is neither resolved nor dropped."""
        with self._lock:
            return any(key[0] == source for key in self._in_flight)

    def drop(self, frame: Frame, cause: DropCause) -> None:
        """A frame in flight is given up."""
        with self._lock:
            self._in_flight.remove(_key(frame))
            self._dropped[cause] += 1

    def resolve(self, frame: Frame) -> None:
        """A frame's result was handed to the sinks."""
        with self._lock:
            self._in_flight.remove(_key(frame))
            self._resolved += 1

    def open_sink(self, sink: str) -> None:
        """Start an account."""
        with self._lock:
            self._sinks[sink] = Counter()

    def offer(self, sink: str) -> None:
        """A result waits for a sink."""
        with self._lock:
            self._sinks[sink].update(offered=1, queued=1)

    def settle(self, sink: str, outcome: Literal["written", "dropped", "failed"]) -> None:
        """A waiting result was delivered, pushed out or lost."""
        with self._lock:
            self._sinks[sink].update({outcome: 1, "queued": -1})

    def snapshot(self) -> LedgerSnapshot:
        """All counts at one instant."""
        with self._lock:
            return LedgerSnapshot(
                self._captured,
                self._resolved,
                len(self._in_flight),
                dict(self._dropped),
                {sink: SinkAccount(**account) for sink, account in self._sinks.items()},
            )


def _key(frame: Frame) -> FrameKey:
    return (frame.source, frame.epoch, frame.index)
