"""`CameraSource`: a USB camera, or whatever else Video4Linux shows as one."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl

import cv2
import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.clock import Clock
from vidseg.runtime.errors import FrameError, SourceLostError, SourceOpenError, UsageError
from vidseg.runtime.frame import Frame, Image
from vidseg.runtime.sources.cameras import CameraInfo, list_cameras
from vidseg.runtime.sources.capture import CameraOptions, Capture, Got, open_capture

log = logging.getLogger(__name__)

MAX_DRIVER_AGE_NS = 1_000_000_000
"""Driver times that are older than this, or lie ahead, come from another clock than the monotonic one."""

FIRST_FRAME_READS = 3
"""How often the first frame is waited for: some cameras take more than one wait to start."""

FPS_TOLERANCE = 0.01
"""29.97 frames a second are what was meant by 30."""

_FORM = "/dev/video0?size=1280x720&fps=30&format=MJPG&rotate=0|90|180|270"
_TURNS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


class CameraSource:
    """The pictures of a camera, upright, as 8 bit BGR: of 16 bit samples the upper byte, of gray three equal channels.

    What the camera gives instead of what it was asked for is logged as a warning. `captured_ns` and `stamp_ns` are the
    driver's time of the buffer where it can be believed, else the time at which the picture arrived. Pictures that the
    driver itself drops are not seen: OpenCV does not tell their number.

    Args:
        path: `/dev/video0`, or a link such as `/dev/v4l/by-id/NAME`, which is followed anew by each `open()`; its text
            is the source's name.
        options: what to ask for.
        open_capture: opens the device that `path` leads to; raises OSError with the reason where it cannot.
        list_cameras: says which cameras are there, for an error's message.
    """

    def __init__(
        self,
        path: str | Path,
        options: CameraOptions | None = None,
        *,
        open_capture: Callable[[Path], Capture] = open_capture,
        list_cameras: Callable[[], list[CameraInfo]] = list_cameras,
    ) -> None:
        self._name = str(path)
        self._options = options or CameraOptions()
        self._open_capture = open_capture
        self._list_cameras = list_cameras
        self._capture: Capture | None = None
        self._first: Frame | None = None
        self._epoch = -1
        self._index = 0

    @classmethod
    def from_uri(cls, uri: str) -> CameraSource:
        """Read `/dev/video0?size=1280x720&fps=30&format=MJPG&rotate=0|90|180|270`; the options may be left out.

        Raises:
            UsageError: an unknown key, or a value that is not understood or out of range.
        """
        path, _, query = uri.partition("?")
        if len(uri) > 300 or not uri.isprintable():
            raise UsageError("a camera's address is not understood", uri[:300], f"Use {_FORM}.")
        return cls(path, _options_from_query(uri, query))

    @property
    def name(self) -> str:
        """The path as it was given, without options."""
        return self._name

    @property
    def live(self) -> bool:
        """True: a camera does not wait."""
        return True

    def open(self, clock: Clock, stop: threading.Event) -> None:
        """Open the camera, ask for what is wanted, and wait for the first frame.

        Raises:
            SourceOpenError: it is not there, may not be used, cannot be opened, or gives no frame.
        """
        self.close()
        self._clock = clock
        self._stop = stop
        self._capture = capture = self._opened()
        self._epoch += 1
        self._index = 0
        self._report(capture.configure(self._options))
        self._first = self._first_frame(capture)

    def read(self) -> Frame | None:
        """The next frame; None when stopped. A wait that has begun ends within the capture's own limit of 2 s.

        Raises:
            FrameError: this one cannot be decoded; the next call goes on.
            SourceLostError: the camera is gone, or gave nothing for 2 s.
        """
        if self._stop.is_set() or self._capture is None:
            return None
        if self._first is not None:
            first, self._first = self._first, None
            return first
        frame = self._next_frame(self._capture)
        if frame is None and not self._stop.is_set():
            if not Path(self._name).exists():
                raise SourceLostError(f"{self._name}: the camera is gone", f"{self._index} frames", "Plug it in again.")
            got = f"{self._index} frames, then none"
            raise SourceLostError(f"{self._name}: the camera gives no more frames", got, "Check its cable and its hub.")
        return frame

    def close(self) -> None:
        """Let go of the camera. Idempotent."""
        capture, self._capture, self._first = self._capture, None, None
        if capture is not None:
            capture.close()

    def _opened(self) -> Capture:
        try:
            return self._open_capture(Path(self._name).resolve(strict=True))
        except FileNotFoundError as error:
            cameras = [f"{camera.path} ({camera.name})" for camera in self._list_cameras()]
            there = f"There is {', '.join(cameras)}." if cameras else "No camera is connected."
            raise SourceOpenError(f"{self._name}: there is no such camera", "", there) from error
        except PermissionError as error:
            join = "Join the group `video` (sudo usermod -aG video $USER) and log in again."
            raise SourceOpenError(f"{self._name}: you may not use this camera", "", join) from error
        except OSError as error:
            raise SourceOpenError(f"{self._name} cannot be opened as a camera", error.strerror or "") from error

    def _report(self, got: Got) -> None:
        asked = self._options
        text = _mode_text(got.size_wh, got.fps, got.format)
        is_as_asked = (
            asked.size_wh in {None, got.size_wh}
            and (asked.fps is None or abs(got.fps - asked.fps) <= FPS_TOLERANCE * asked.fps)
            and asked.format in {None, got.format}
        )
        if is_as_asked:
            log.info("%s: gives %s", self._name, text)
        else:
            wanted = _mode_text(asked.size_wh, asked.fps, asked.format)
            log.warning("%s: asked for %s, got %s", self._name, wanted, text)

    def _first_frame(self, capture: Capture) -> Frame | None:
        for _ in range(FIRST_FRAME_READS):
            if self._stop.is_set():
                return None
            try:
                frame = self._next_frame(capture)
            except FrameError as error:
                log.info("%s", error)  # the first picture of many a camera is damaged
                frame = None
            if frame is not None:
                return frame
        if self._stop.is_set():
            return None
        mend = "Another USB port, a smaller size or format=MJPG needs less bandwidth."
        raise SourceOpenError(f"{self._name}: the camera gives no frame", "", mend)

    def _next_frame(self, capture: Capture) -> Frame | None:
        captured = capture.read()
        if captured is None:
            return None
        image, driver_ns = captured
        index = self._index
        self._index += 1
        now_ns = self._clock.now_ns()
        is_believed = driver_ns is not None and 0 <= now_ns - driver_ns <= MAX_DRIVER_AGE_NS
        taken_ns = driver_ns if driver_ns is not None and is_believed else now_ns
        upright = _upright_bgr(image, self._options.rotate)
        if upright is None:
            got = f"{image.dtype} {image.shape}"
            raise FrameError(f"{self._name}: frame {index} cannot be decoded", got, "It is left out.")
        return Frame(self._name, self._epoch, index, taken_ns, taken_ns, "driver", upright)


def _upright_bgr(image: NDArray[Any], rotate: int) -> Image | None:
    """A camera's picture as (H, W, 3) uint8 BGR, turned clockwise by `rotate` degrees; None where it is none."""
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    is_gray = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1)
    if not image.size or image.dtype != np.uint8 or not (is_gray or (image.ndim == 3 and image.shape[2] == 3)):
        return None
    if is_gray:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    return cast(Image, cv2.rotate(image, _TURNS[rotate]) if rotate else image)


def _mode_text(size_wh: tuple[int, int] | None, fps: float | None, fourcc: str | None) -> str:
    size = f"{size_wh[0]}x{size_wh[1]}" if size_wh else None
    rate = None if fps is None else f"{fps:.4g} fps" if fps else "unknown fps"
    return " ".join(part for part in (size, rate, fourcc and fourcc.rstrip()) if part)


def _options_from_query(uri: str, query: str) -> CameraOptions:
    pairs = parse_qsl(query, keep_blank_values=True)
    values = dict(pairs)
    unknown = sorted(values.keys() - {"size", "fps", "format", "rotate"})
    if unknown:
        raise UsageError(f"{uri}: a camera has no {unknown[0]!r}", query, f"Use {_FORM}.")
    forms = {"size": r"[0-9]{1,5}x[0-9]{1,5}", "fps": r"[0-9]{1,4}", "format": r"[ -~]{4}", "rotate": r"[0-9]{1,3}"}
    if len(values) < len(pairs) or not all(re.fullmatch(forms[key], value) for key, value in pairs):
        raise UsageError(f"{uri}: a value is not understood", query, f"Use {_FORM}.")
    try:
        width, _, height = values.get("size", "").partition("x")
        return CameraOptions(
            size_wh=(int(width), int(height)) if width else None,
            fps=int(values["fps"]) if "fps" in values else None,
            format=values.get("format"),
            rotate=int(values.get("rotate", "0")),
        )
    except UsageError as error:
        raise UsageError(f"{uri}: {str(error).rstrip('.')}", "", f"Use {_FORM}.") from error
