"""`Mp4Writer`: pictures into an MP4 file that plays in a browser, and that plays when its writer was killed."""

from __future__ import annotations

import contextlib
import logging
import os
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

from vidseg.runtime.errors import SinkError
from vidseg.runtime.frame import Image
from vidseg.runtime.sinks.fragments import FragmentFile

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.codeccontext import VideoCodecContext
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream

log = logging.getLogger(__name__)

ENCODERS: tuple[tuple[str, dict[str, str]], ...] = (
    ("libx264", {"preset": "superfast", "tune": "zerolatency", "crf": "23", "forced-idr": "1"}),
    ("libopenh264", {}),
    ("mpeg4", {}),
)
"""Tried in this order. x264 on 720p clips of driving and people, one core: superfast with zerolatency 8 ms and 17 KiB a
frame; ultrafast 5 ms and 22 KiB; veryfast 12 ms and 13 KiB, without zerolatency 17 ms, 9 KiB and a second of delay."""

CONTAINER_OPTIONS = {
    # Fragments while it is recorded; the end turns it into a plain MP4, in which every player can seek.
    "movflags": "hybrid_fragmented+empty_moov+frag_keyframe+default_base_moof",
    "frag_duration": "500000",  # microseconds: what a kill -9 can cost
    "flush_packets": "1",
}

KEYFRAME_INTERVAL_NS = 2_000_000_000
"""Time between frames that a player can jump to."""

TICKS_PER_S = 60_000  # whole for all usual rates, 29.97 included; MPEG-4 part 2 allows no more than 65535
NOMINAL_RATE = 30  # for the encoder's rate control only: each frame carries its own time
BITS_PER_PIXEL = 0.15  # for encoders that know no constant quality

MAX_THREADS = 4


class Mp4Writer:
    """Encodes pictures as H.264, 4:2:0, BT.709 limited range, and writes them to an MP4 file as they come.

    At the first complete fragment, half a second after the first picture, the file appears under its name.

    Args:
        path: an existing file is replaced when the new one appears.
        size_wh: of the pictures; both even.

    Raises:
        SinkError: the file cannot be made, or no encoder is there.
    """

    def __init__(self, path: Path, size_wh: tuple[int, int]) -> None:
        import av
        from av.video.reformatter import VideoReformatter

        self._path = path
        encoder, options = available_encoder()
        try:
            self._file = FragmentFile(path)
        except OSError as error:
            raise SinkError(f"{path}: the recording cannot be made", error.strerror or "", "") from error
        self._container = av.open(self._file, "w", format="mp4", options=CONTAINER_OPTIONS)
        self._stream = cast("VideoStream", self._container.add_stream(encoder, rate=NOMINAL_RATE, options=options))
        self._stream.time_base = Fraction(1, TICKS_PER_S)
        configure(self._stream.codec_context, size_wh, has_quality="crf" in options)
        self._reformatter = VideoReformatter()
        self._next_keyframe_ns = 0
        self._time_ns = 0
        self._has_header = False
        self._is_closed = False

    def write(self, picture: Image, time_ns: int) -> None:
        """Encode one picture.

        Args:
            picture: (H, W, 3) uint8 BGR, C-contiguous, of the size that was announced.
            time_ns: since the start of the recording; larger than the one before by at least 17 microseconds.

        Raises:
            SinkError: the disk is full, or the encoder has failed. The file keeps what was complete.
        """
        from av import FFmpegError
        from av.video.frame import PictureType

        frame = encodable(self._reformatter, picture, time_ns)
        if time_ns >= self._next_keyframe_ns:
            frame.pict_type = PictureType.I
            self._next_keyframe_ns = time_ns + KEYFRAME_INTERVAL_NS
        try:
            self._container.mux(self._stream.encode(frame))
            if self._file.keep():  # the header first, then a fragment each time
                if self._has_header:
                    self._file.publish()
                self._has_header = True
        except (OSError, FFmpegError) as error:
            raise self._failure(error) from error
        self._time_ns = time_ns

    def close(self) -> None:
        """Finish the file. Idempotent.

        Raises:
            SinkError: what was written cannot be finished. The file keeps what was complete.
        """
        from av import FFmpegError

        if self._is_closed:
            return
        self._is_closed = True
        try:
            if self._file.error is None:
                self._container.mux(self._stream.encode(None))
                self._container.close()
                if self._has_header:
                    self._file.finish()
        except (OSError, FFmpegError) as error:
            raise self._failure(error) from error
        finally:
            with contextlib.suppress(OSError, FFmpegError):
                self._container.close()
            self._file.close()

    def _failure(self, error: Exception) -> SinkError:
        kept = "What was recorded up to then plays." if self._file.is_published else "Nothing was recorded."
        return SinkError(
            f"{self._path}: the recording breaks off at {self._time_ns / 1e9:.1f} s",
            getattr(error, "strerror", None) or str(error),
            f"{kept} The disk may be full, or the pictures too large for H.264.",
        )


def available_encoder() -> tuple[str, dict[str, str]]:
    """Name and options of the best encoder that PyAV has here.

    Raises:
        SinkError: it has none.
    """
    from av.codec import Codec
    from av.codec.codec import UnknownCodecError

    for name, options in ENCODERS:
        try:
            Codec(name, "w")
        except UnknownCodecError:
            continue
        if name != ENCODERS[0][0]:
            log.warning("PyAV has no %s: recording with %s, in lower quality", ENCODERS[0][0], name)
        return name, options
    known = ", ".join(name for name, _ in ENCODERS)
    raise SinkError("no video can be recorded", f"a PyAV without {known}", "Install PyAV from PyPI: pip install av.")


def configure(context: VideoCodecContext, size_wh: tuple[int, int], *, has_quality: bool) -> None:
    """Prepare an encoder for pictures that `encodable` gives.

    Args:
        context: of an encoder that was not opened yet.
        size_wh: of the pictures; both even.
        has_quality: its options ask for a constant quality; else it gets a bit rate.
    """
    from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

    context.width, context.height = size_wh
    context.pix_fmt = "yuv420p"
    context.time_base = Fraction(1, TICKS_PER_S)
    context.colorspace = Colorspace.ITU709
    context.color_range = ColorRange.MPEG
    context.color_primaries = ColorPrimaries.BT709
    context.color_trc = ColorTrc.BT709
    context.thread_count = min(os.cpu_count() or 1, MAX_THREADS)
    if not has_quality:
        context.bit_rate = round(size_wh[0] * size_wh[1] * NOMINAL_RATE * BITS_PER_PIXEL)


def encodable(reformatter: VideoReformatter, picture: Image, time_ns: int) -> VideoFrame:
    """A picture, (H, W, 3) uint8 BGR, C-contiguous, as 4:2:0 in BT.709 limited range, with its time."""
    from av import VideoFrame
    from av.video.reformatter import ColorRange, Colorspace

    frame = reformatter.reformat(
        VideoFrame.from_numpy_buffer(picture, "bgr24"),
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        threads=1,
    )
    frame.time_base = Fraction(1, TICKS_PER_S)
    frame.pts = time_ns * TICKS_PER_S // 1_000_000_000
    return frame
