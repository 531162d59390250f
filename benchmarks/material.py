"""Sources and sinks that cost nothing, for measuring the rest."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from vidseg.runtime.clock import Clock
from vidseg.runtime.frame import Frame, Image, Segmentation
from vidseg.runtime.sinks import Sink
from vidseg.runtime.sinks.mp4 import Mp4Writer
from vidseg.runtime.sources.street.render import Street


class FramesFromMemory:
    """Gives the same pictures again and again, `count` frames in all; live at `fps`, or lossless."""

    name = "memory"

    def __init__(self, images: list[Image], count: int, fps: float | None = None) -> None:
        self.live = fps is not None
        self._images = images
        self._count = count
        self._interval_ns = round(1e9 / fps) if fps else 0
        self._next = 0

    def open(self, clock: Clock, stop: threading.Event) -> None:
        """Start the schedule."""
        self._clock = clock
        self._stop = stop
        self._started_ns = clock.now_ns()

    def read(self) -> Frame | None:
        """The next frame, when it is due."""
        index = self._next
        if index >= self._count:
            return None
        self._next += 1
        if self.live and not self._clock.sleep_until(self._started_ns + index * self._interval_ns, self._stop):
            return None
        image = self._images[index % len(self._images)]
        return Frame(self.name, 0, index, self._clock.now_ns(), index, "pts", image)

    def close(self) -> None:
        """Nothing to let go of."""


class Ages(Sink):
    """Keeps age and number of every result."""

    name = "ages"
    queue_size = 1

    def __init__(self) -> None:
        self.ages_ms: list[float] = []
        self.indices: list[int] = []

    def write(self, segmentation: Segmentation, picture: Image | None) -> None:  # noqa: ARG002 - not wanted
        """Keep them."""
        self.ages_ms.append(segmentation.age_ms)
        self.indices.append(segmentation.frame.index)


class PicturesTaken(Sink):
    """Wants every picture and does nothing with it."""

    name = "pictures"
    wants_picture = True

    def write(self, segmentation: Segmentation, picture: Image | None) -> None:
        """Nothing."""


def street_images(count: int, size_wh: tuple[int, int]) -> list[Image]:
    """Pictures of the rendered street, half a second apart."""
    street = Street(5, size_wh)
    return [np.ascontiguousarray(street.render(index, index / 2)[0]) for index in range(count)]


def street_clip(path: Path, count: int, size_wh: tuple[int, int]) -> Path:
    """A video file of them, 30 a second."""
    writer = Mp4Writer(path, size_wh)
    street = Street(5, size_wh)
    for index in range(count):
        writer.write(street.render(index, index / 30)[0], round(index * 1e9 / 30))
    writer.close()
    return path
