"""Claims, over 1,000,000 frames of four live sources with a fault at every 1,000th: resident memory grows by less than
2 % after warm-up, no frame is lost uncounted, and every source is used to its end.

The faults take turns: a damaged frame, a source that is lost and opened again, inference that fails once, inference
that fails twice, so that the engine is opened anew. A camera gives its next frame when it sees the result of the last.
`python -m benchmarks.soak [--frames N]`
"""

from __future__ import annotations

import argparse
import itertools
import logging
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from benchmarks.interleave import Claim, conclude
from vidseg.runtime.clock import Clock, SystemClock
from vidseg.runtime.engines import Ticket
from vidseg.runtime.engines.fake import FakeEngine
from vidseg.runtime.errors import EngineError, FrameError, SourceLostError
from vidseg.runtime.frame import Frame, Segmentation
from vidseg.runtime.pipeline import Pipeline, PipelineOptions
from vidseg.runtime.sinks.callback import CallbackSink

SOURCES = 4
FAULT_EVERY = 1000
WARM_UP = 0.1
"""Share of the frames behind which memory is looked at first."""

MAX_GROWTH = 0.02
SIZE_WH = (64, 48)


class ImpatientClock(SystemClock):
    """Waits for nothing: a source is tried again at once."""

    def sleep_until(self, deadline_ns: int, stop: threading.Event) -> bool:  # noqa: ARG002 - it does not wait
        """Return at once."""
        return not stop.is_set()


class FaultyCamera:
    """Gives a frame behind each result, and a fault at every 1,000th."""

    live = True
    patience_s = 0.02

    def __init__(self, name: str, count: int) -> None:
        self.name = name
        self._numbers: Iterator[int] = iter(range(count))
        self._epoch = -1
        self._index = 0
        self.seen = threading.Event()
        self._images = [np.full((SIZE_WH[1], SIZE_WH[0], 3), value, np.uint8) for value in range(0, 256, 32)]

    def open(self, clock: Clock, stop: threading.Event) -> None:
        """Begin the next epoch."""
        self._clock, self._stop = clock, stop
        self._epoch += 1
        self._index = 0

    def read(self) -> Frame | None:
        """The next frame, or fault."""
        self.seen.wait(self.patience_s)  # a result may have been lost to a fault
        self.seen.clear()
        number = next(self._numbers, None)
        if number is None or self._stop.is_set():
            return None
        fault = number // FAULT_EVERY % 4 if number % FAULT_EVERY == FAULT_EVERY - 1 else None
        self._index += 1
        if fault == 0:
            raise FrameError(f"{self.name}: a damaged frame")
        if fault == 1:
            raise SourceLostError(f"{self.name}: lost")
        image = self._images[number % 8].copy()
        return Frame(self.name, self._epoch, self._index - 1, self._clock.now_ns(), number, "pts", image)

    def close(self) -> None:
        """Nothing is held."""


class FaultyEngine(FakeEngine):
    """Fails once, or twice in a row, now and then."""

    batches = itertools.count()

    def enqueue(self, batch: NDArray[np.uint8]) -> Ticket:  # type: ignore[override]
        """Start a batch, or fail."""
        number = next(self.batches)
        if number % (4 * FAULT_EVERY) in {2 * FAULT_EVERY, 3 * FAULT_EVERY, 3 * FAULT_EVERY + 1}:
            raise EngineError("inference failed")
        return super().enqueue(batch)


class Memory:
    """Resident memory by the number of results."""

    def __init__(self, cameras: Sequence[FaultyCamera]) -> None:
        self._cameras = {camera.name: camera for camera in cameras}
        self.results = 0
        self.kib: list[int] = []

    def __call__(self, segmentation: Segmentation) -> None:
        """Look at every 1,000th result."""
        self._cameras[segmentation.frame.source].seen.set()
        self.results += 1
        if self.results % 1000 == 0:
            self.kib.append(resident_kib())

    def after_warm_up_and_at_the_end(self) -> tuple[float, float]:
        """In MiB, medians of some readings."""
        few = max(len(self.kib) // 20, 1)
        first = int(len(self.kib) * WARM_UP)
        return median(self.kib[first : first + few]) / 1024, median(self.kib[-few:]) / 1024


def resident_kib() -> int:
    """Of this process, as Linux tells it."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1])


def main() -> None:
    """Measure and conclude."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=1_000_000)
    frames = parser.parse_args().frames
    logging.disable(logging.WARNING)
    cameras = [FaultyCamera(f"camera {number}", frames // SOURCES) for number in range(SOURCES)]
    memory = Memory(cameras)
    opened = itertools.count()

    def open_engine() -> FaultyEngine:
        next(opened)
        return FaultyEngine(SIZE_WH)

    options = PipelineOptions(retry="always")
    pipeline = Pipeline(cameras, open_engine, [CallbackSink(memory)], options=options, clock=ImpatientClock())
    pipeline.run()
    ledger = pipeline.statistics().ledger
    lost = SOURCES * sum(number % 4 == 1 for number in range(frames // SOURCES // FAULT_EVERY))  # no frame was there
    warm, end = memory.after_warm_up_and_at_the_end()
    growth = end / warm - 1
    print(
        f"{ledger.captured} captured, {ledger.resolved} resolved, {ledger.dropped}; engines opened {next(opened)} times"
    )
    print(f"resident memory {warm:.1f} MiB after warm-up, {end:.1f} MiB at the end")
    conclude(
        Claim(f"memory grows < {MAX_GROWTH:.0%}", f"{growth:+.2%}", growth < MAX_GROWTH),
        Claim("books balance, nothing is in flight", "yes", ledger.balanced and ledger.in_flight == 0),
        Claim(
            "all frames are accounted for", f"{ledger.captured} of {frames - lost}", ledger.captured == frames - lost
        ),
    )


if __name__ == "__main__":
    main()
