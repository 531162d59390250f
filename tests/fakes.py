"""Real parts with a switch: sources, sinks and a clock that a test holds in its hand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.clock import Clock
from vidseg.runtime.engines import Ticket
from vidseg.runtime.engines.fake import FakeEngine
from vidseg.runtime.frame import Frame, Image, Segmentation, SourceStatus
from vidseg.runtime.sinks import Sink
from vidseg.runtime.sources.capture import CameraOptions, Got


class ManualClock:
    """Time that moves only when a test says so."""

    def __init__(self) -> None:
        self._now_ns = 1_000_000_000
        self._moved = threading.Condition()

    def now_ns(self) -> int:
        with self._moved:
            return self._now_ns

    def wall_ns(self) -> int:
        return self.now_ns()

    def advance_ms(self, elapsed_ms: float) -> None:
        with self._moved:
            self._now_ns += int(elapsed_ms * 1e6)
            self._moved.notify_all()

    def sleep_until(self, deadline_ns: int, stop: threading.Event) -> bool:
        with self._moved:
            while self._now_ns < deadline_ns and not stop.is_set():
                self._moved.wait(0.005)  # `stop` does not notify
        return not stop.is_set()


class VirtualClock:
    """Time that passes in no time: whoever sleeps finds that it is over."""

    def __init__(self) -> None:
        self._now_ns = 1_000_000_000

    def now_ns(self) -> int:
        return self._now_ns

    def wall_ns(self) -> int:
        return self._now_ns

    def sleep_until(self, deadline_ns: int, stop: threading.Event) -> bool:
        self._now_ns = max(self._now_ns, deadline_ns)
        return not stop.is_set()


def picture_of(index: int, size_wh: tuple[int, int] = (16, 12)) -> Image:
    """A picture whose blue channel tells its index (modulo 8) to the fake engine: class = index % 8."""
    return np.full((size_wh[1], size_wh[0], 3), (index % 8) << 5, np.uint8)


class MemorySource:
    """Gives `count` frames as fast as they are taken; items of `faults` are raised at their index instead."""

    def __init__(
        self,
        count: int,
        *,
        name: str = "memory",
        live: bool = False,
        faults: dict[int, Exception] | None = None,
        gate: Callable[[int, threading.Event], None] | None = None,
    ) -> None:
        self.name = name
        self.live = live
        self.opened = self.closed = 0
        self._count = count
        self._faults = faults or {}
        self._gate = gate
        self._next = 0

    def open(self, clock: Clock, stop: threading.Event) -> None:
        self.opened += 1
        self._clock = clock
        self._stop = stop

    def read(self) -> Frame | None:
        if self._next >= self._count:
            return None
        index = self._next
        self._next += 1
        if self._gate:
            self._gate(index, self._stop)
        if index in self._faults:
            raise self._faults[index]
        return Frame(self.name, 0, index, self._clock.now_ns(), index, "pts", picture_of(index))

    def close(self) -> None:
        self.closed += 1


class FakeCapture:
    """A camera that gives `shots`: pictures with the driver's time in ns, or None where nothing came in time.

    After the last one it gives nothing. `before` is called ahead of each picture. Unless `got` is given, it does all
    that it is asked for.
    """

    def __init__(
        self,
        shots: Sequence[tuple[NDArray[Any], int | None] | None],
        got: Got | None = None,
        before: Callable[[], object] = lambda: None,
    ) -> None:
        self.asked: list[CameraOptions] = []
        self.reads = self.closed = 0
        self._shots = shots
        self._got = got
        self._before = before

    def configure(self, options: CameraOptions) -> Got:
        self.asked.append(options)
        return self._got or Got(options.size_wh or (16, 12), options.fps or 30, options.format or "YUYV")

    def read(self) -> tuple[NDArray[Any], int | None] | None:
        self._before()
        self.reads += 1
        return self._shots[self.reads - 1] if self.reads <= len(self._shots) else None

    def close(self) -> None:
        self.closed += 1


class HookedEngine(FakeEngine):
    """A fake engine that calls `before` ahead of each batch."""

    def __init__(self, size_wh: tuple[int, int], before: Callable[[], object], clock: Clock | None = None) -> None:
        super().__init__(size_wh, None, clock)
        self._before = before

    def enqueue(self, batch: NDArray[np.uint8]) -> Ticket:  # type: ignore[override]
        self._before()
        return super().enqueue(batch)


class CollectingSink(Sink):
    """Keeps what it gets; calls `before` ahead of each write; raises `fault` at result number `fault_at`."""

    name = ""
    queue_size = 4
    wants_picture = False
    main_thread = False

    def __init__(
        self,
        name: str = "collecting",
        *,
        fault: Exception | None = None,
        fault_at: int = 0,
        before: Callable[[], object] = lambda: None,
        queue_size: int = 4,
        wants_picture: bool = False,
    ) -> None:
        self.name = name
        self.queue_size = queue_size
        self.wants_picture = wants_picture
        self.results: list[Segmentation] = []
        self.pictures: list[Image | None] = []
        self.statuses: list[SourceStatus] = []
        self.closed = 0
        self._fault = fault
        self._fault_at = fault_at
        self._before = before

    def write(self, segmentation: Segmentation, picture: Image | None) -> None:
        self._before()
        if self._fault and len(self.results) == self._fault_at:
            raise self._fault
        self.results.append(segmentation)
        self.pictures.append(picture)

    def notify(self, status: SourceStatus) -> None:
        self.statuses.append(status)

    def close(self) -> None:
        self.closed += 1

    @property
    def indices(self) -> list[int]:
        return [result.frame.index for result in self.results]


def classes_of(results: Iterable[Segmentation]) -> list[int]:
    """The one class that each result consists of; fails where a result has several."""
    found = []
    for result in results:
        (only,) = set(result.class_map.ravel().tolist())
        found.append(only)
    return found
