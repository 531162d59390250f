"""Recording frames of a live source to calibrate on, as a folder of PNG files."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import cv2

from vidseg.calibration.frame_filter import FrameCounts, FrameFilter
from vidseg.runtime.clock import Clock, SystemClock
from vidseg.runtime.errors import ConfigurationError, FrameError, SinkError, SourceLostError, UsageError
from vidseg.runtime.frame import Frame, Image
from vidseg.runtime.sources import Source

Ending: TypeAlias = Literal["complete", "time over", "stopped", "source ended"]

MAX_SECONDS = 1e9
"""Some thirty years: times are counted in nanoseconds, which have to be finite."""


@dataclass(frozen=True, slots=True)
class RecordingOptions:
    """How much is recorded.

    Attributes:
        frames: how many different ones.
        seconds: it ends after this time with fewer, at most MAX_SECONDS; looked at after each frame of the source.
        interval_s: between two recorded frames, at least: 100 frames of one second are no scene. 0..MAX_SECONDS.
    """

    frames: int
    seconds: float
    interval_s: float = 0.5

    def __post_init__(self) -> None:
        if self.frames < 1 or not 0 < self.seconds <= MAX_SECONDS or not 0 <= self.interval_s <= MAX_SECONDS:
            got = f"{self.frames} frames in {self.seconds:g} s, {self.interval_s:g} s apart"
            raise UsageError("a recording has a frame or more, and takes a finite time", got)


@dataclass(frozen=True, slots=True)
class Recording:
    """What was recorded.

    Attributes:
        folder: where the frames are.
        counts: what became of the source's frames; `passed_over` are those within the interval.
        ending: why it ended.
    """

    folder: Path
    counts: FrameCounts
    ending: Ending


def record_frames(
    source: Source,
    folder: Path,
    options: RecordingOptions,
    *,
    clock: Clock | None = None,
    stop: threading.Event | None = None,
    progress: Callable[[int], None] = lambda _recorded: None,
) -> Recording:
    """Write different frames of a live source to a folder, as `000000.png` and so on.

    Blank and frozen frames and near duplicates are left out. Each file is there whole or not at all; what was recorded
    stays, however the recording ends. The source is opened, read and closed here.

    Args:
        source: a live one.
        folder: is made, or is an empty one.
        options: see `RecordingOptions`.
        clock: for another time than the system's.
        stop: ends the recording as soon as it is set.
        progress: called with the number of recorded frames.

    Raises:
        UsageError: the source is not live.
        ConfigurationError: the folder is not empty or cannot be made, or no frame was of use.
        SourceOpenError: the source gives nothing.
        SourceLostError: the source was lost.
        SinkError: the disk is full.
    """
    if not source.live:
        raise UsageError(f"{source.name}: a file needs no recording", "", "Give it to vidseg export --calib as it is.")
    clock, stop = clock or SystemClock(), stop or threading.Event()
    is_new = _prepare(folder)
    recorder = _Recorder(folder, options)
    try:
        source.open(clock, stop)
        ending = recorder.run(source, clock, stop, progress)
    finally:
        source.close()
        if is_new and not recorder.recorded:
            with suppress(OSError):
                folder.rmdir()
    counts = recorder.counts()
    if not counts.kept and ending != "stopped":
        raise ConfigurationError(f"{source.name}: no frame to calibrate on", str(counts), counts.advice())
    return Recording(folder, counts, ending)


class _Recorder:
    def __init__(self, folder: Path, options: RecordingOptions) -> None:
        self.recorded = 0
        self._folder = folder
        self._options = options
        self._filter = FrameFilter()
        self._counts: Counter[str] = Counter()
        self._due_ns = 0

    def run(self, source: Source, clock: Clock, stop: threading.Event, progress: Callable[[int], None]) -> Ending:
        deadline_ns = clock.now_ns() + round(self._options.seconds * 1e9)
        while self.recorded < self._options.frames:
            try:
                frame = source.read()
            except FrameError:
                self._counts["unreadable"] += 1
            except SourceLostError as error:
                what = f"{source.name} was lost; {self.recorded} of {self._options.frames} frames are in {self._folder}"
                raise SourceLostError(what, str(error)) from error
            else:
                if frame is None:
                    return "stopped" if stop.is_set() else "source ended"
                if self._take(frame):
                    progress(self.recorded)
            if clock.now_ns() >= deadline_ns:
                break
        return "complete" if self.recorded == self._options.frames else "time over"

    def counts(self) -> FrameCounts:
        return FrameCounts(kept=self.recorded, **self._counts)

    def _take(self, frame: Frame) -> bool:
        if self.recorded and frame.captured_ns < self._due_ns:
            self._counts["passed_over"] += 1
            return False
        rejection = self._filter.rejection(frame.image)
        if rejection:
            self._counts[rejection] += 1
            return False
        _write_png(self._folder / f"{self.recorded:06}.png", frame.image)
        self.recorded += 1
        self._due_ns = frame.captured_ns + round(self._options.interval_s * 1e9)
        return True


def _prepare(folder: Path) -> bool:
    """Make the folder; False where an empty one is there."""
    try:
        folder.mkdir()
    except FileExistsError:
        if not folder.is_dir():
            raise ConfigurationError(f"{folder} is no folder", "a file", "Name another place.") from None
    except FileNotFoundError as error:
        if folder.parent.is_dir():  # as /proc
            what = f"{folder} cannot be made"
            raise ConfigurationError(what, "a folder that takes none", "Name another place.") from error
        do = "Make it first."
        raise ConfigurationError(f"{folder}: the folder above is missing", f"no {folder.parent}", do) from error
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be made", error.strerror or "", "Name another place.") from error
    else:
        return True
    try:
        found = len(os.listdir(folder))  # noqa: PTH208 - the names are enough
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be listed", error.strerror or "", "Name another place.") from error
    if found:
        raise ConfigurationError(f"{folder}: the folder is not empty", f"{found} files", "Name a new one.")
    return False


def _write_png(path: Path, image: Image) -> None:
    """Write under a hidden name, then move: a file of this name is whole, even after a loss of power."""
    scratch = path.with_name(f".{path.name}.part")
    try:
        with scratch.open("wb") as stream:
            stream.write(cv2.imencode(".png", image)[1].tobytes())
            stream.flush()
            os.fsync(stream.fileno())
        scratch.rename(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise SinkError(f"{path} cannot be written", error.strerror or "", "Free some space.") from error
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
