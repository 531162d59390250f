"""An engine with no device: answers after a service time, fails on demand. For tests and benchmarks."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.clock import Clock, SystemClock
from vidseg.runtime.decoding import Outputs, Prediction, decode_class_map
from vidseg.runtime.engines.graph import check_batch
from vidseg.runtime.errors import EngineError


@dataclass(frozen=True, slots=True)
class FakeService:
    """How long a batch takes, and which batches fail.

    Attributes:
        service_ms: time per batch; a pair is the range of a uniform random time.
        max_batch: pictures that one batch may hold; a batch takes its time however many there are.
        faults: error by the number of the `enqueue` call, from 0; raised by that ticket's `result()`.
        seed: of the random times.
    """

    service_ms: float | tuple[float, float] = 0.0
    faults: Mapping[int, Exception] = field(default_factory=dict)
    seed: int = 0
    max_batch: int = 1


class FakeEngine:
    """Works like a device with one queue: a batch starts when the one before it is done.

    The end of a batch is reckoned from the end of the one before, not from the time at which a sleep happened to
    return, so that the jitter of sleeping does not add up. The class of a pixel is its blue value divided by 32: a
    result can be traced to its frame.
    """

    def __init__(
        self, size_wh: tuple[int, int], service: FakeService | None = None, clock: Clock | None = None
    ) -> None:
        service = service or FakeService()
        self._size_wh = size_wh
        self._max_batch = service.max_batch
        self._faults = service.faults
        self._clock = clock or SystemClock()
        self._never = threading.Event()
        self._free_ns = 0
        self._calls = 0
        self._closed = False
        low, high = (service.service_ms,) * 2 if isinstance(service.service_ms, int | float) else service.service_ms
        generator = random.Random(service.seed)
        self._next_service_ns: Callable[[], int] = lambda: int(generator.uniform(low, high) * 1e6)

    @property
    def input_shape_nhwc(self) -> tuple[int, int, int, int]:
        """(max_batch, height, width, 3)."""
        return (self._max_batch, self._size_wh[1], self._size_wh[0], 3)

    @property
    def max_batch(self) -> int:
        """As `FakeService` has it."""
        return self._max_batch

    @property
    def device(self) -> str:
        """Says that it is no device."""
        return "none (fake)"

    @property
    def precision(self) -> str:
        """Always `fp32`."""
        return "fp32"

    def enqueue(self, batch: NDArray[np.uint8]) -> _FakeTicket:
        """Put a batch, (n, h, w, 3) uint8, behind those that are being worked on; returns at once."""
        if self._closed:
            raise EngineError("the fake engine is closed", "a batch", "Open a new one.")
        check_batch(batch, self.input_shape_nhwc)
        fault = self._faults.get(self._calls)
        self._calls += 1
        self._free_ns = max(self._free_ns, self._clock.now_ns()) + self._next_service_ns()
        due_ns = self._free_ns
        return _FakeTicket(batch, lambda: self._clock.sleep_until(due_ns, self._never), fault)

    def decode(self, outputs: Outputs) -> Prediction:
        """The class map as it is."""
        return decode_class_map(outputs)

    def close(self) -> None:
        """Refuse further batches."""
        self._closed = True

    def __enter__(self) -> FakeEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _FakeTicket:
    def __init__(self, batch: NDArray[np.uint8], wait: Callable[[], bool], fault: Exception | None) -> None:
        self._batch = batch
        self._wait = wait
        self._fault = fault

    def result(self) -> dict[str, NDArray[Any]]:
        """Wait for the batch's end; raise its fault, or return `class_map`."""
        self._wait()
        if self._fault is not None:
            raise self._fault
        return {"class_map": self._batch[..., 0] >> 5}
