"""A camera as OpenCV reads it: what it is asked for, what it gives, picture by picture."""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.errors import UsageError

VIDEO_MAJOR = 81
"""The major number of every Video4Linux device (Linux, Documentation/admin-guide/devices.txt)."""

# OpenCV waits 10 s for a picture, and has no property for it with V4L2. It reads this, in seconds, once in a process,
# at its first wait. It is set on import, because setting it while other threads run is not safe.
os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "2")


@dataclass(frozen=True, slots=True)
class CameraOptions:
    """What a camera is asked for. Where it is None, what OpenCV takes: 640x480, 30 frames a second, no compression.

    Attributes:
        size_wh: in pixels, as the camera sees it: before rotation; each 16 to 16384.
        fps: frames a second, 1 to 1000. Whole, because OpenCV hands drivers nothing else.
        format: the pixels' FourCC, such as `MJPG` or `YUYV`; the case matters.
        rotate: degrees clockwise that make the picture upright: 0, 90, 180 or 270.

    Raises:
        UsageError: a value out of range.
    """

    size_wh: tuple[int, int] | None = None
    fps: int | None = None
    format: str | None = None
    rotate: int = 0

    def __post_init__(self) -> None:
        if self.size_wh is not None and not all(16 <= side <= 16384 for side in self.size_wh):
            raise UsageError("a camera's sides are 16 to 16384 pixels", f"{self.size_wh[0]}x{self.size_wh[1]}")
        if self.fps is not None and not 1 <= self.fps <= 1000:
            raise UsageError("a camera gives 1 to 1000 frames a second", f"fps={self.fps}")
        if self.format is not None and not re.fullmatch(r"[ -~]{4}", self.format):
            raise UsageError("a camera's format has four letters", f"format={self.format}", "Try MJPG or YUYV.")
        if self.rotate not in {0, 90, 180, 270}:
            raise UsageError("a camera is rotated by 0, 90, 180 or 270 degrees", f"rotate={self.rotate}")


@dataclass(frozen=True, slots=True)
class Got:
    """What a camera really gives: size before rotation in pixels, frames a second (0 for unknown), FourCC."""

    size_wh: tuple[int, int]
    fps: float
    format: str


class Capture(Protocol):
    """An open camera, used by one thread."""

    def configure(self, options: CameraOptions) -> Got:
        """Ask for size, rate and format; say what came of it. Called once, ahead of `read()`."""

    def read(self) -> tuple[NDArray[Any], int | None] | None:
        """Wait for the next picture; None when none came: time is over, or the camera is gone.

        Returns the picture and the time at which the driver says it was taken, in nanoseconds of the monotonic clock,
        or None. The picture is (H, W, 3), (H, W, 1) or (H, W), uint8 or uint16, BGR or gray, and the caller's own. It
        has no pixels where it cannot be decoded.
        """

    def close(self) -> None:
        """Let go of the camera. Idempotent."""


class Video(Protocol):
    """What of `cv2.VideoCapture` is used."""

    def set(self, propId: int, value: float) -> bool:  # noqa: N803 - OpenCV's name
        """Set a property."""

    def get(self, propId: int) -> float:  # noqa: N803
        """Read a property."""

    def grab(self) -> bool:
        """Wait for a buffer."""

    def retrieve(self) -> tuple[bool, Any]:
        """Decode the buffer."""

    def release(self) -> None:
        """Let go of the device."""


def open_capture(device: Path) -> Capture:
    """Open a Video4Linux device.

    Raises:
        OSError: with the reason: it is not there, may not be used, is no camera, or is taken.
    """
    status = device.stat()
    if not stat.S_ISCHR(status.st_mode) or os.major(status.st_rdev) != VIDEO_MAJOR:
        raise OSError(errno.ENODEV, "something that is no video device")
    os.close(os.open(device, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))  # says why; OpenCV only says no
    video = cv2.VideoCapture(str(device), cv2.CAP_V4L2)
    if not video.isOpened():
        video.release()
        raise OSError(errno.EBUSY, "a device that another program uses, or that takes no pictures")
    return V4l2Capture(video)


class V4l2Capture:
    """`cv2.VideoCapture` with the V4L2 backend. OpenCV's conversion to BGR is left on.

    OpenCV 5.0 drops the first picture, and gives the picture before once more, under the new time and without a word,
    in place of an MJPG one that it cannot decode.

    Args:
        video: opened; closed by `close()`.
    """

    def __init__(self, video: Video) -> None:
        self._video = video

    def configure(self, options: CameraOptions) -> Got:
        """See `Capture`. The format goes first: it decides which sizes there are, and they which rates."""
        if options.format is not None:
            self._video.set(cv2.CAP_PROP_FOURCC, int.from_bytes(options.format.encode(), "little"))
        if options.size_wh is not None:
            self._video.set(cv2.CAP_PROP_FRAME_WIDTH, options.size_wh[0])
            self._video.set(cv2.CAP_PROP_FRAME_HEIGHT, options.size_wh[1])
        if options.fps is not None:
            self._video.set(cv2.CAP_PROP_FPS, options.fps)
        width = int(self._video.get(cv2.CAP_PROP_FRAME_WIDTH))
        height = int(self._video.get(cv2.CAP_PROP_FRAME_HEIGHT))
        fps = self._video.get(cv2.CAP_PROP_FPS)
        code = int(self._video.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
        return Got((width, height), fps if 0 < fps < 10_000 else 0.0, code.to_bytes(4, "little").decode("latin-1"))

    def read(self) -> tuple[NDArray[Any], int | None] | None:
        """See `Capture`. Waits two seconds at most, unless the environment told OpenCV otherwise."""
        if not self._video.grab():
            return None
        driver_ms = self._video.get(cv2.CAP_PROP_POS_MSEC)  # the buffer's time stamp, until the next grab
        driver_ns = round(driver_ms * 1e6) if driver_ms > 0 else None
        try:
            decoded, image = self._video.retrieve()
        except cv2.error:
            decoded, image = False, None
        if not decoded or image is None:
            return np.empty((0, 0, 3), np.uint8), driver_ns
        return image, driver_ns

    def close(self) -> None:
        """See `Capture`."""
        self._video.release()
