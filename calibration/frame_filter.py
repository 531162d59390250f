"""Which frames of a source are worth calibrating on: those that show something, and something else than the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.frame import Image

Thumbnail: TypeAlias = NDArray[np.uint8]  # (24, 32) gray
Rejection: TypeAlias = Literal["blank", "frozen", "near_duplicate"]

THUMBNAIL_WH = (32, 24)

BLANK_CONTRAST = 4.0
"""Standard deviation of a thumbnail below which a frame shows nothing. Measured: a covered lens with sensor noise up to
20 gray levels stays below 0.7; the flattest of 600 street pictures, near night, has 17."""

FROZEN_DISTANCE = 0.1
"""Distance to the frame before, below which it is the same picture sent again. Measured: a still picture in H.264 stays
below 0.04; sensor noise of 5 gray levels alone makes 0.1 at 720p; people before a static camera 0.33 and more."""

NEAR_DUPLICATE = 2.0
"""Distance to any kept frame, below which a frame has nothing new. Measured: a static camera with sensor noise of 30
gray levels at 480x360 stays below 1.5, so that a scene at rest gives one frame; a drive through a town, 15 frames a
second, has 2.07 and more, so that each one is kept; pictures taken apart have 17 and more (CamVid's training frames).
A highway at 24 frames a second keeps every second frame. Shifting a picture of 480 pixels by 3 makes about 2."""


def thumbnail(image: Image) -> Thumbnail:
    """What a frame of any size, (H, W, 3) uint8 BGR, shows at a glance; the aspect ratio is let go of."""
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    small: Thumbnail = cv2.resize(gray, THUMBNAIL_WH, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return small


def distances(thumbnails: NDArray[np.uint8], other: Thumbnail) -> NDArray[np.float32]:
    """Mean absolute difference in gray levels of each of (n, 24, 32) thumbnails to another one; (n,) float32."""
    difference = np.maximum(thumbnails, other) - np.minimum(thumbnails, other)
    means: NDArray[np.float32] = difference.mean(axis=(1, 2), dtype=np.float32)
    return means


@dataclass(frozen=True, slots=True)
class FrameCounts:
    """What became of the frames of a source, so that their sum is what was read.

    Attributes:
        kept: of use.
        unreadable: damaged ones.
        blank: black, or of one colour.
        frozen: the same as the frame before.
        near_duplicate: nearly the same as a kept one.
        passed_over: not looked at, or let go of, because there are enough.
    """

    kept: int = 0
    unreadable: int = 0
    blank: int = 0
    frozen: int = 0
    near_duplicate: int = 0
    passed_over: int = 0

    @property
    def read(self) -> int:
        """All of them."""
        return self.kept + sum(count for _, count in self._others())

    def __str__(self) -> str:
        """As `3 of 124 (100 frozen, 21 near duplicate)`."""
        causes = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in self._others() if count)
        return f"{self.kept} of {self.read}" + (f" ({causes})" if causes else "")

    def advice(self) -> str:
        """How to get more of use, after the most frequent cause."""
        name, count = max(self._others(), key=lambda item: item[1])
        return _ADVICE[name if count else "passed_over"]

    def _others(self) -> list[tuple[str, int]]:
        return [(field.name, getattr(self, field.name)) for field in fields(self) if field.name != "kept"]


_ADVICE = {
    "unreadable": "Check that the pictures open elsewhere, or record them again.",
    "blank": "Check that the lens is not covered and that there is light.",
    "frozen": "Check that the camera moves on, and give several minutes of the real scene.",
    "near_duplicate": "Give a longer video, or several minutes of the real scene.",
    "passed_over": "Give a longer video, or more pictures.",
}


class FrameFilter:
    """Keeps a thumbnail of each kept frame, 768 bytes, and compares every new frame with all of them."""

    def __init__(self) -> None:
        self._kept = np.empty((64, *THUMBNAIL_WH[::-1]), np.uint8)
        self._count = 0
        self._previous: Thumbnail | None = None

    @property
    def thumbnails(self) -> NDArray[np.uint8]:
        """Of the kept frames, (n, 24, 32) uint8; a copy."""
        kept: NDArray[np.uint8] = self._kept[: self._count].copy()
        return kept

    def rejection(self, image: Image) -> Rejection | None:
        """Why a frame is of no use; None where it is, and then it is among the kept ones."""
        small = thumbnail(image)
        previous, self._previous = self._previous, small
        if small.std() < BLANK_CONTRAST:
            return "blank"
        if previous is not None and distances(previous[None], small)[0] < FROZEN_DISTANCE:
            return "frozen"
        if (distances(self._kept[: self._count], small) < NEAR_DUPLICATE).any():
            return "near_duplicate"
        if self._count == len(self._kept):
            self._kept = np.concatenate([self._kept, np.empty_like(self._kept)])
        self._kept[self._count] = small
        self._count += 1
        return None

    def keep(self, positions: Sequence[int]) -> None:
        """Forget the kept frames but those at `positions`, which become 0, 1, ... in that order."""
        self._kept[: len(positions)] = self._kept[list(positions)]
        self._count = len(positions)
