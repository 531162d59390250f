"""`PictureEncoder`: pictures into packets, each at once."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np

from vidseg.runtime.frame import Image
from vidseg.runtime.sinks.mp4 import NOMINAL_RATE, available_encoder, configure, encodable
from vidseg.runtime.sinks.recording.packets import EncodedPicture

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext

KEYFRAME_INTERVAL_NS = 1_000_000_000
"""Most time between two places at which a file can begin."""


class PictureEncoder:
    """Encodes pictures of one size, each at once, with a keyframe at least every second.

    Args:
        size_wh: of the pictures; an odd side grows by a pixel that repeats its neighbour.

    Raises:
        SinkError: PyAV has no encoder.
    """

    def __init__(self, size_wh: tuple[int, int]) -> None:
        from av import CodecContext
        from av.video.reformatter import VideoReformatter

        self.size_wh = size_wh
        name, options = available_encoder()
        self._codec = "mpeg4" if name == "mpeg4" else "h264"
        self._context = cast("VideoCodecContext", CodecContext.create(name, "w"))
        even_wh = (size_wh[0] + size_wh[0] % 2, size_wh[1] + size_wh[1] % 2)
        configure(self._context, even_wh, has_quality="crf" in options)
        self._context.framerate = Fraction(NOMINAL_RATE)
        self._context.options = dict(options)
        self._reformatter = VideoReformatter()
        self._next_keyframe_ns = 0

    def encode(
        self, picture: Image, time_ns: int, captured_ns: int, *, keyframe: bool = False
    ) -> Iterator[EncodedPicture]:
        """Encode one picture.

        Args:
            picture: (H, W, 3) uint8 BGR, of the size that was announced.
            time_ns: on the source's time line; larger than the one before by at least 17 microseconds.
            captured_ns: monotonic.
            keyframe: a file has to be able to begin here.

        Raises:
            FFmpegError: the encoder has failed.
        """
        from av.video.frame import PictureType

        frame = encodable(self._reformatter, _even(picture), time_ns)
        if keyframe or time_ns >= self._next_keyframe_ns:
            frame.pict_type = PictureType.I
            self._next_keyframe_ns = time_ns + KEYFRAME_INTERVAL_NS
        for packet in self._context.encode(frame):
            assert packet.pts is not None
            yield EncodedPicture(bytes(packet), self._codec, packet.pts, captured_ns, packet.is_keyframe)


def _even(picture: Image) -> Image:
    height, width = picture.shape[:2]
    if width % 2 or height % 2:
        return cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE).astype(
            np.uint8, copy=False
        )
    return np.ascontiguousarray(picture)
