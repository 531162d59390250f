"""`VideoFileSink`: the drawn pictures as an MP4 file."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import cv2
import numpy as np

from vidseg.runtime.errors import SinkError
from vidseg.runtime.frame import Image, Segmentation
from vidseg.runtime.geometry import placement_of
from vidseg.runtime.sinks import Sink
from vidseg.runtime.sinks.mp4 import Mp4Writer
from vidseg.runtime.sinks.timeline import Timeline

log = logging.getLogger(__name__)


class VideoFileSink(Sink):
    """Records the pictures as H.264 in MP4, each at the time of its frame's stamp.

    The first picture gives the size; an odd width or height grows by one pixel that repeats its neighbour. Pictures of
    another size are scaled into it, with a border where the shape differs. What was recorded until half a second before
    a crash plays. An existing file stays until the first half second of the new one is there.

    Args:
        path: ends with `.mp4`.

    Raises:
        SinkError: the folder is not there, may not be written to, or `path` is a folder.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._timeline = Timeline()
        self._writer: Mp4Writer | None = None
        self._size_wh = (0, 0)
        self._has_scaled = False
        folder = Path(os.path.realpath(self._path)).parent
        if not folder.is_dir():
            raise SinkError(f"{path}: there is no folder {folder}", "", "Make it first.")
        taken = self._path.exists() and not self._path.is_file()
        if taken or not os.access(folder, os.W_OK):
            got = "a folder, pipe or device of that name" if taken else f"no right to write to {folder}"
            raise SinkError(f"{path}: the recording cannot be made", got, "Name another file.")

    @property
    def name(self) -> str:
        """The path, as it was given."""
        return str(self._path)

    @property
    def wants_picture(self) -> bool:
        """True."""
        return True

    @property
    def queue_size(self) -> int:
        """64: two seconds of a camera, for a disk that stalls."""
        return 64

    def write(self, segmentation: Segmentation, picture: Image | None) -> None:
        """Record one picture.

        Raises:
            SinkError: the file cannot be made, or the disk is full. What was recorded before plays.
        """
        assert picture is not None
        if self._writer is None:
            height, width = picture.shape[:2]
            self._size_wh = (width + width % 2, height + height % 2)
            self._writer = Mp4Writer(self._path, self._size_wh)
        self._writer.write(self._fitted(picture), self._timeline.place_ns(segmentation.frame))

    def close(self) -> None:
        """Finish the file. Idempotent.

        Raises:
            SinkError: it cannot be finished. What was recorded until half a second before plays.
        """
        if self._writer is not None:
            self._writer.close()

    def _fitted(self, picture: Image) -> Image:
        height, width = picture.shape[:2]
        target_width, target_height = self._size_wh
        if (width + width % 2, height + height % 2) == self._size_wh:
            if (width, height) == self._size_wh:
                return np.ascontiguousarray(picture)
            padded = cv2.copyMakeBorder(
                picture, 0, target_height - height, 0, target_width - width, cv2.BORDER_REPLICATE
            )
            return padded.astype(np.uint8, copy=False)
        if not self._has_scaled:
            self._has_scaled = True
            log.warning(
                "%s: pictures of %dx%d are scaled to the recording's %dx%d", self.name, width, height, *self._size_wh
            )
        return placement_of((width, height), self._size_wh, "letterbox").input_from_frame(picture)
