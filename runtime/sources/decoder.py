"""`VideoDecoder`: the frames of a video file by FFmpeg, through PyAV."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np

from vidseg.runtime.errors import FrameError, SourceLostError, SourceOpenError
from vidseg.runtime.frame import Image

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

MAX_THREADS = 4
"""Each thread holds a frame. At 720p on two cores, threads decode in 1.6 ms a frame instead of 2.4, for 15 % more
processor time."""

EARLY_END_S = 0.5
"""A file whose packets end this much before the length that its header names was cut off."""

FALLBACK_RATE = Fraction(25)
"""Frames per second of a raw stream that has neither time stamps nor a rate."""

UNSPECIFIED_MATRIX = 2
"""AVCOL_SPC_UNSPECIFIED of libavutil/pixfmt.h."""

CUT_OFF = "It was cut off: copy or record it again. The frames before were used."


class VideoDecoder:
    """Demuxes and decodes one file.

    Attributes:
        frames: gives each good frame, and a `FrameError` in place of each bad one. At the end of a file that was cut
            off it raises `SourceLostError`.

    Raises:
        SourceOpenError: there is no such file, or it holds no video.
    """

    def __init__(self, path: Path) -> None:
        from av.video.reformatter import VideoReformatter

        self._path = path
        self._name = str(path)
        self._container = _open_container(path)
        try:
            self._stream = _video_stream_of(self._container, self._name)
        except SourceOpenError:
            self._container.close()
            raise
        self._stream.codec_context.thread_type = "AUTO"
        self._stream.codec_context.thread_count = min(os.cpu_count() or 1, MAX_THREADS)
        self._reformatter = VideoReformatter()
        self._rate = self._stream.average_rate or FALLBACK_RATE
        self._start_pts = self._stream.start_time
        self.frames = self._decode()

    def close(self) -> None:
        """Close the file. Idempotent."""
        self.frames.close()
        self._container.close()

    def stamp_ns(self, frame: VideoFrame, index: int) -> int:
        """Nanoseconds since the start of the stream; from the frame's number where the file has no time stamps."""
        if frame.pts is None or frame.time_base is None:
            return int(index * 1_000_000_000 / self._rate)
        if self._start_pts is None:
            self._start_pts = frame.pts
        return int((frame.pts - self._start_pts) * frame.time_base * 1_000_000_000)

    def image_of(self, frame: VideoFrame) -> Image:
        """The frame as (H, W, 3) uint8 BGR, upright, its matrix and range undone."""
        from av.video.reformatter import Colorspace

        is_large = frame.width > 1024 or frame.height > 576
        assumed = Colorspace.ITU709 if is_large else Colorspace.ITU601
        bgr = self._reformatter.reformat(
            frame,
            format="bgr24",
            src_colorspace=assumed if frame.colorspace == UNSPECIFIED_MATRIX else None,
            threads=1,  # one thread takes 0.5 ms at 720p; the library's own would be started for every call
        )
        return _upright(cast(Image, bgr.to_ndarray()), frame)

    def _decode(self) -> Generator[VideoFrame | FrameError, None, None]:
        from av import FFmpegError

        count, end_pts, cut_off = 0, 0, False
        try:
            for packet in self._container.demux(self._stream):
                if packet.size:  # else it is the one that flushes the decoder
                    count += 1
                    cut_off = packet.is_corrupt
                    end_pts = max(end_pts, (packet.pts or 0) + (packet.duration or 0))
                yield from self._frames_of(packet, count)
        except FFmpegError as error:
            raise SourceLostError(
                f"{self._name}: the file cannot be read behind frame {count}", error.strerror or "", CUT_OFF
            ) from error
        self._check_end(count, float(end_pts * (self._stream.time_base or 0)), cut_off)

    def _frames_of(self, packet: Packet[VideoStream], number: int) -> Generator[VideoFrame | FrameError, None, None]:
        from av import FFmpegError

        if packet.size and packet.is_corrupt:
            yield FrameError(f"{self._name}: frame {number} is incomplete", "", "It is left out.")
            return
        try:
            frames = packet.decode()
        except FFmpegError as error:
            yield FrameError(f"{self._name}: frame {number} cannot be decoded", error.strerror or "", "It is left out.")
            return
        for frame in frames:
            if frame.is_corrupt:
                yield FrameError(f"{self._name}: a frame near number {number} is damaged", "", "It is left out.")
            else:
                yield frame

    def _check_end(self, count: int, end_s: float, cut_off: bool) -> None:
        promised_s = 0.0
        if self._stream.duration is not None and self._stream.time_base is not None:
            promised_s = float(self._stream.duration * self._stream.time_base)
        elif self._container.duration is not None and len(self._container.streams) == 1:
            promised_s = self._container.duration / 1e6  # with sound it may be the sound's length
        cut_off = cut_off or _is_cut_off_matroska(self._path)
        if cut_off or (end_s > 0 and promised_s - end_s > EARLY_END_S):
            of = f" of {promised_s:.1f} s" if promised_s > end_s else ""
            raise SourceLostError(f"{self._name}: the file ends early", f"{count} frames, {end_s:.1f} s{of}", CUT_OFF)


def _open_container(path: Path) -> InputContainer:
    import av

    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise SourceOpenError(f"{path}: there is no such file", "", "Check the path.") from None
    except OSError as error:
        raise SourceOpenError(f"{path} cannot be read", error.strerror or "", "Check the path.") from error
    if not stat.S_ISREG(mode):  # a pipe might never give anything
        got = "a folder" if stat.S_ISDIR(mode) else "a pipe or device"
        raise SourceOpenError(f"{path} is no video file", got, "Name a file, or a folder of images.")
    try:
        # `file:` keeps names such as 12:30.mp4 from being taken for URLs; playlists may name local files only.
        container = _open_leniently(f"file:{path}", {"protocol_whitelist": "file"})
    except OSError as error:
        raise SourceOpenError(f"{path} cannot be read", error.strerror or "") from error
    except av.FFmpegError as error:
        raise _no_video(path, error.strerror or "") from error
    if container.format.name == "tty":  # FFmpeg shows text files as a terminal
        container.close()
        raise _no_video(path, "text")
    return container


def _is_cut_off_matroska(path: Path) -> bool:
    """True for a Matroska or WebM file that is shorter than its segment says (RFC 9559, section 5.1; sizes as in RFC
    8794, section 4): the decoder takes what is missing for the end."""
    with path.open("rb") as file:
        start = file.read(256)
    if not start.startswith(b"\x1a\x45\xdf\xa3"):
        return False
    head_size, head_length = _ebml_size(start[4:])
    segment = 4 + head_length + head_size
    if start[segment : segment + 4] != b"\x18\x53\x80\x67":
        return False
    size, length = _ebml_size(start[segment + 4 :])
    unknown = (1 << 7 * length) - 1  # written live: nobody knows
    return size != unknown and path.stat().st_size < segment + 4 + length + size


def _ebml_size(data: bytes) -> tuple[int, int]:
    """A size of 1 to 8 bytes, whose leading zeros tell how many; and how many."""
    length = 9 - data[0].bit_length() if data and data[0] else 8
    return int.from_bytes(data[:length], "big") & ((1 << 7 * length) - 1), length


def _open_leniently(name: str, options: dict[str, str]) -> InputContainer:
    """Open with tags of any encoding. PyAV 19 replaces what is no UTF-8 by itself and has no argument for it."""
    import av

    try:
        return av.open(name, options=options, metadata_errors="replace")
    except TypeError:
        return av.open(name, options=options)


def _no_video(path: Path, reason: str) -> SourceOpenError:
    with path.open("rb") as file:
        start = file.read(8)
    if start[4:] == b"ftyp":
        return SourceOpenError(
            f"{path} cannot be read", "an MP4 file without its index", "It was cut off: copy or record it again."
        )
    got = reason if start else "an empty file"
    return SourceOpenError(f"{path} is no video", got, "Check that it plays elsewhere.")


def _video_stream_of(container: InputContainer, name: str) -> VideoStream:
    from av.stream import Disposition

    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        kinds = ", ".join(stream.type for stream in container.streams) or "nothing"
        raise SourceOpenError(f"{name} has no video in it", kinds, "Name a file with pictures.")
    if streams[0].codec_context is None:
        raise SourceOpenError(f"{name}: this build of FFmpeg cannot decode it", "", "Convert it to H.264.")
    return streams[0]


def _upright(image: Image, frame: VideoFrame) -> Image:
    """Undo the rotation and mirroring that the display matrix (libavutil/display.h) asks for, in quarter turns."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return image
    a, b, _, c, d = np.frombuffer(cast(bytes, matrix), np.int32)[:5].tolist()  # x' = a x + c y, y' = b x + d y
    is_quarter_turn = abs(b) + abs(c) > abs(a) + abs(d)
    mirror_x, mirror_y = (c < 0, b < 0) if is_quarter_turn else (a < 0, d < 0)
    if is_quarter_turn:
        image = cast(Image, cv2.transpose(image))
    if mirror_x or mirror_y:
        image = cast(Image, cv2.flip(image, -1 if mirror_x and mirror_y else int(mirror_x)))
    return image
