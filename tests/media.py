"""Small videos for tests, written by FFmpeg, with pictures whose pixels are known."""

from __future__ import annotations

import struct
import threading
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import av
import numpy as np

from vidseg.runtime.clock import Clock, SystemClock
from vidseg.runtime.errors import FrameError
from vidseg.runtime.frame import Frame, Image, Segmentation
from vidseg.runtime.sources import Source

if TYPE_CHECKING:
    from av.video.stream import VideoStream


def moving_blocks(count: int, size_wh: tuple[int, int] = (96, 64)) -> list[Image]:
    """Pictures of coloured 8x8 blocks that move three pixels to the right each frame."""
    width, height = size_wh
    colors = np.random.default_rng(1).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    first = colors.repeat(8, 0).repeat(8, 1)[:height, :width]
    return [np.ascontiguousarray(np.roll(first, 3 * index, 1)) for index in range(count)]


def write_video(
    path: Path,
    pictures: list[Image],
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    rate: int = 30,
    muxer: str | None = None,
    muxer_options: dict[str, str] | None = None,
    codec_options: dict[str, str] | None = None,
) -> Path:
    """Encode BGR pictures."""
    frames = [av.VideoFrame.from_ndarray(picture, "bgr24").reformat(format=pixel_format) for picture in pictures]
    return write_frames(
        path, frames, codec=codec, rate=rate, muxer=muxer, muxer_options=muxer_options, codec_options=codec_options
    )


def write_frames(
    path: Path,
    frames: list[av.VideoFrame],
    *,
    codec: str,
    rate: int = 30,
    muxer: str | None = None,
    muxer_options: dict[str, str] | None = None,
    codec_options: dict[str, str] | None = None,
    colorspace: int = 2,
    color_range: int = 0,
) -> Path:
    """Encode frames as they are; 2 and 0 are FFmpeg's numbers for a matrix and a range that are not named."""
    with av.open(str(path), "w", format=muxer, options=muxer_options or {}) as container:
        stream = cast("VideoStream", container.add_stream(codec, rate=rate, options=codec_options or {}))
        stream.width, stream.height = frames[0].width, frames[0].height
        stream.pix_fmt = frames[0].format.name
        stream.codec_context.colorspace = colorspace
        stream.codec_context.color_range = color_range
        for index, frame in enumerate(frames):
            frame.colorspace = colorspace
            frame.color_range = color_range
            frame.pts, frame.time_base = index, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def with_display_matrix(video: bytes, abcd: tuple[int, int, int, int]) -> bytes:
    """An MP4 file whose picture is turned: x' = a x + c y, y' = b x + d y (tkhd box, ISO 14496-12)."""
    a, b, c, d = (value << 16 for value in abcd)
    matrix_at = video.index(b"tkhd") + 44
    matrix = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    return video[:matrix_at] + matrix + video[matrix_at + len(matrix) :]


def opened(source: Source, clock: Clock | None = None, stop: threading.Event | None = None) -> Source:
    """The source, opened."""
    source.open(clock or SystemClock(), stop or threading.Event())
    return source


def read_all(source: Source, frames: list[Frame] | None = None) -> tuple[list[Frame], list[FrameError]]:
    """The good frames up to the end, and the errors that stand for bad ones; `frames` is filled where it is given."""
    frames = [] if frames is None else frames
    errors: list[FrameError] = []
    while True:
        found = _read_or_error(source)
        if found is None:
            return frames, errors
        if isinstance(found, FrameError):
            errors.append(found)
        else:
            frames.append(found)


def _read_or_error(source: Source) -> Frame | FrameError | None:
    try:
        return source.read()
    except FrameError as error:
        return error


def segmentation_of(
    image: Image, index: int = 0, *, stamp_ms: float = 0, source: str = "drive.mp4", epoch: int = 0
) -> Segmentation:
    """A result for an image whose class map, at the image's size, repeats 0, 1, 2, 255 from pixel to pixel."""
    height, width = image.shape[:2]
    class_map = np.array([0, 1, 2, 255], np.uint8)[np.arange(height * width).reshape(height, width) % 4]
    frame = Frame(source, epoch, index, 0, round(stamp_ms * 1e6), "pts", image)
    return Segmentation(frame, class_map, np.eye(2, 3), 1.0)
