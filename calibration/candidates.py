"""Candidates: different frames, spread over a source, held on disk as the model sees them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidseg.calibration.frame_filter import FrameCounts, FrameFilter
from vidseg.calibration.frame_store import FrameStore
from vidseg.runtime.errors import FrameError, SourceLostError, UsageError
from vidseg.runtime.frame import Frame
from vidseg.runtime.sources import Source
from vidseg.runtime.sources.opening import source_from_uri

MAX_FRAMES_READ = 10_000
"""At most so many frames of a source are read: five and a half minutes at 30 a second. 720p takes 5 ms each here."""


@dataclass(frozen=True, slots=True, eq=False)
class CandidateFrames:
    """Different frames, spread over a source.

    Attributes:
        source: its URI.
        store: the frames, in order of time.
        numbers: of each in the source, from 0.
        thumbnails: of each, (n, 24, 32) uint8.
        counts: what became of all frames.
    """

    source: str
    store: FrameStore
    numbers: tuple[int, ...]
    thumbnails: NDArray[np.uint8]
    counts: FrameCounts


def read_candidates(
    uri: str,
    store: FrameStore,
    *,
    max_candidates: int,
    log: Callable[[str], None] = lambda _line: None,
    progress: Callable[[int], None] = lambda _read: None,
) -> CandidateFrames:
    """Fill an empty store with different frames, spread evenly over a source, or its first 10,000 frames.

    Damaged, blank and frozen frames and near duplicates are left out. Each time that twice `max_candidates` are held,
    every second one is let go, and from there on every second frame is not looked at. The same file gives the same
    frames.

    Args:
        uri: see `source_from_uri`.
        store: is filled; may hold twice `max_candidates` meanwhile.
        max_candidates: at most so many are in the store at the end.
        log: called with a line where the source ends early or is not read to its end.
        progress: called with the number of frames read.

    Raises:
        UsageError: the source is live.
        SourceOpenError: it cannot be read.
        ConfigurationError: the disk is full.
    """
    source = source_from_uri(uri)
    if source.live:
        do = "Record it first with vidseg record-calib, and give the folder."
        raise UsageError(f"{uri}: a live source gives other frames each time", "a live source", do)
    try:
        source.open(StillClock(), threading.Event())
        reader = _CandidateReader(source, store, max_candidates)
        reader.read_all(log, progress)
    finally:
        source.close()
    return reader.candidates(uri)


class StillClock:
    """Always 0: the rendered street writes the time into its pixels, and what is chosen has to be reproducible."""

    def now_ns(self) -> int:
        """0."""
        return 0

    def wall_ns(self) -> int:
        """0."""
        return 0

    def sleep_until(self, deadline_ns: int, stop: threading.Event) -> bool:  # noqa: ARG002 - time stands still
        """Return at once."""
        return not stop.is_set()


class _CandidateReader:
    def __init__(self, source: Source, store: FrameStore, max_candidates: int) -> None:
        self._source = source
        self._store = store
        self._max = max_candidates
        self._filter = FrameFilter()
        self._numbers: list[int] = []
        self._counts: Counter[str] = Counter()
        self._stride = 1

    def read_all(self, log: Callable[[str], None], progress: Callable[[int], None]) -> None:
        for number in range(MAX_FRAMES_READ):
            try:
                frame = self._source.read()
            except FrameError:
                self._counts["unreadable"] += 1
            except SourceLostError as error:
                log(str(error))
                break
            else:
                if frame is None:
                    break
                self._take(number, frame)
            progress(number + 1)
        else:
            log(f"{self._source.name}: only the first {MAX_FRAMES_READ} frames are used")
        count = min(self._max, len(self._numbers))
        self._keep([row * len(self._numbers) // count for row in range(count)])

    def candidates(self, uri: str) -> CandidateFrames:
        counts = FrameCounts(kept=len(self._numbers), **self._counts)
        return CandidateFrames(uri, self._store, tuple(self._numbers), self._filter.thumbnails, counts)

    def _take(self, number: int, frame: Frame) -> None:
        if number % self._stride:
            self._counts["passed_over"] += 1
            return
        rejection = self._filter.rejection(frame.image)
        if rejection:
            self._counts[rejection] += 1
            return
        self._store.append(frame.image)
        self._numbers.append(number)
        if len(self._numbers) == 2 * self._max:
            self._keep(range(0, len(self._numbers), 2))
            self._stride *= 2

    def _keep(self, positions: list[int] | range) -> None:
        self._counts["passed_over"] += len(self._numbers) - len(positions)
        self._store.keep(positions)
        self._filter.keep(positions)
        self._numbers = [self._numbers[position] for position in positions]
