"""`VideoSource`: the frames of a video file."""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from vidseg.runtime.clock import Clock
from vidseg.runtime.errors import FrameError, SourceLostError, SourceOpenError
from vidseg.runtime.frame import Frame, Image
from vidseg.runtime.sources.decoder import VideoDecoder
from vidseg.runtime.sources.pacing import Pacer

if TYPE_CHECKING:
    from av import VideoFrame


class VideoSource:
    """The frames of a video file, upright, in the colours that the file's tags describe.

    Matrix (BT.601, BT.709, BT.2020) and range are honoured; where the file names no matrix it is BT.709 for frames
    wider than 1024 or higher than 576 pixels and BT.601 for smaller ones, as players take it. Gray and deep formats
    become 8 bit BGR. `stamp_ns` is the time since the start of the file.

    Args:
        path: the file; its text is the source's name.
        realtime: give frames at the pace of their stamps instead of as fast as they are read.
    """

    def __init__(self, path: str | Path, *, realtime: bool = False) -> None:
        self._path = Path(path)
        self._pacer = Pacer() if realtime else None
        self._decoder: VideoDecoder | None = None
        self._ahead: deque[VideoFrame | FrameError] = deque()
        self._index = 0
        self._size_wh: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """The path, as it was given."""
        return str(self._path)

    @property
    def live(self) -> bool:
        """False: a file waits."""
        return False

    def open(self, clock: Clock, stop: threading.Event) -> None:
        """Open the file and decode as far as the first good frame.

        Raises:
            SourceOpenError: it is missing, is no video, was cut off before its index, or has no frame.
        """
        self._clock = clock
        self._stop = stop
        self._decoder = VideoDecoder(self._path)
        try:
            for found in self._decoder.frames:
                self._ahead.append(found)
                if not isinstance(found, FrameError):
                    return
        except SourceLostError as error:
            raise SourceOpenError(f"{self.name} has no frame that can be decoded", str(error)) from error
        raise SourceOpenError(f"{self.name} has no frame that can be decoded", f"{len(self._ahead)} damaged ones")

    def read(self) -> Frame | None:
        """The next frame; None at the end.

        Raises:
            FrameError: this frame is damaged; the next call goes on.
            SourceLostError: the file ends before its time, or its frames change size.
        """
        if self._decoder is None or self._stop.is_set():
            return None
        found = self._ahead.popleft() if self._ahead else next(self._decoder.frames, None)
        if found is None:
            return None
        index = self._index
        self._index += 1
        if isinstance(found, FrameError):
            raise found
        image = self._decoder.image_of(found)
        self._check_size(image, index)
        stamp_ns = self._decoder.stamp_ns(found, index)
        if self._pacer is not None and not self._pacer.wait(stamp_ns, self._clock, self._stop):
            return None
        return Frame(self.name, 0, index, self._clock.now_ns(), stamp_ns, "pts", image)

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._ahead.clear()
        if self._decoder is not None:
            self._decoder.close()
            self._decoder = None

    def _check_size(self, image: Image, index: int) -> None:
        height, width = image.shape[:2]
        if self._size_wh is None:
            self._size_wh = (width, height)
        if self._size_wh != (width, height):
            before = f"{self._size_wh[0]}x{self._size_wh[1]}"
            raise SourceLostError(
                f"{self.name}: the frames change size at frame {index}",
                f"{width}x{height} behind {before}",
                f"Scale the video to one size, or cut it in two: ffmpeg -i IN -vf scale={before.replace('x', ':')} OUT",
            )
