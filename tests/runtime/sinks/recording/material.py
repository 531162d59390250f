"""Frames whose number is in their pixels, sinks that record them, and what comes back from the files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av
import numpy as np

from tests.fakes import ManualClock
from vidseg.runtime.frame import Frame, Image, Segmentation
from vidseg.runtime.manifest import ClassSpec
from vidseg.runtime.results.events import Rule
from vidseg.runtime.results.report import ReportOptions
from vidseg.runtime.sinks.recording.options import RecordingOptions
from vidseg.runtime.sinks.recording.sink import RecordingSink
from vidseg.runtime.sources.street.code import StreetCode, read_code, write_code

CLASSES = tuple(ClassSpec(name=name, color_rgb=(0, 0, 0)) for name in ("road", "car"))
CARS = ReportOptions(rules=(Rule("cars", "car", 0.5),))
INTERVAL_MS = 40
RATE = 1000 // INTERVAL_MS


class WallClock(ManualClock):
    """A clock whose wall-clock time a test sets as it likes."""

    def __init__(self, wall_s: float = 1_767_323_045.0) -> None:
        super().__init__()
        self.wall_s = wall_s

    def wall_ns(self) -> int:
        return round(self.wall_s * 1e9)


class Recording:
    """A sink, and a camera before it that takes a numbered picture each 40 ms."""

    def __init__(
        self,
        folder: Path,
        options: RecordingOptions,
        *,
        source: str = "cam",
        report: ReportOptions = CARS,
        clock: ManualClock | None = None,
    ) -> None:
        self.clock = clock or WallClock()
        self.sink = RecordingSink(folder, CLASSES, options, report=report, clock=self.clock)
        self.source = source
        self.index = 0
        self.epoch = 0
        self.size_wh = (192, 144)
        self.noise = 0

    def write(self, count: int = 1, *, cars: bool = False, gap_ms: float = 0.0) -> None:
        for _ in range(count):
            self.clock.advance_ms(INTERVAL_MS + gap_ms)
            image = coded_picture(self.index, self.size_wh, self.noise)
            now_ns = self.clock.now_ns()
            frame = Frame(self.source, self.epoch, self.index, now_ns, now_ns, "driver", image)
            class_map = np.full((4, 4), cars, np.uint8)
            self.sink.write(Segmentation(frame, class_map, np.eye(2, 3), 1.0), image)
            self.index += 1

    def close(self) -> None:
        self.sink.close()


def coded_picture(index: int, size_wh: tuple[int, int] = (192, 144), noise: int = 0) -> Image:
    """A picture with its number in its pixels; `noise` makes it large when it is encoded."""
    width, height = size_wh
    image = np.full((height, width, 3), 90, np.uint8)
    if noise:
        image = np.random.default_rng(index).integers(90 - noise, 90 + noise, image.shape, np.uint8)
    write_code(image, StreetCode(index, index))
    return image


def segments(folder: Path) -> list[Path]:
    """The files of a source, in the order of their numbers."""
    return sorted(path for path in folder.glob("*.mp4") if path.is_file())


def played(path: Path) -> tuple[list[int], list[float]]:
    """Numbers and times, in seconds, of all pictures of a file; fails where one cannot be read."""
    numbers: list[int] = []
    times: list[float] = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            code = read_code(frame.to_ndarray(format="bgr24"))
            assert code is not None, (path, len(numbers))
            assert frame.time is not None
            numbers.append(code.index)
            times.append(frame.time)
    return numbers, times


def all_numbers(paths: Iterable[Path]) -> list[int]:
    """Of several files, one after the other."""
    return [number for path in paths for number in played(path)[0]]


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
