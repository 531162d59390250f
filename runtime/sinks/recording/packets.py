"""Encoded pictures on their own: made once, kept in memory, and put into any file or stream."""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, cast

from vidseg.runtime.sinks.mp4 import TICKS_PER_S

if TYPE_CHECKING:
    from av import Packet
    from av.container import OutputContainer
    from av.video.stream import VideoStream


@dataclass(frozen=True, slots=True)
class EncodedPicture:
    """One picture as the encoder gave it.

    Attributes:
        data: H.264 with start codes, parameter sets before each keyframe; or MPEG-4 part 2 where PyAV has no better.
        codec: `h264` or `mpeg4`.
        pts: its time on the source's time line, in 1/60000 s.
        captured_ns: monotonic, of the frame.
        is_keyframe: a file can begin with it.
    """

    data: bytes
    codec: str
    pts: int
    captured_ns: int
    is_keyframe: bool

    @property
    def time_ns(self) -> int:
        """`pts` in nanoseconds."""
        return self.pts * 1_000_000_000 // TICKS_PER_S


def add_video(container: OutputContainer, keyframe: EncodedPicture) -> VideoStream:
    """Give a container a stream for pictures like this one; size, colours and parameter sets are read from it."""
    import av

    demuxer = "m4v" if keyframe.codec == "mpeg4" else keyframe.codec
    with av.open(io.BytesIO(keyframe.data), format=demuxer) as template:
        stream = cast("VideoStream", container.add_stream_from_template(template.streams.video[0]))
        stream.time_base = Fraction(1, TICKS_PER_S)
    return stream


def packet_of(picture: EncodedPicture, stream: VideoStream, start_pts: int) -> Packet[VideoStream]:
    """A packet for a container's stream, whose time begins at `start_pts`."""
    from av import Packet

    packet = cast("Packet[VideoStream]", Packet(picture.data))
    packet.pts = packet.dts = picture.pts - start_pts
    packet.time_base = Fraction(1, TICKS_PER_S)
    packet.is_keyframe = picture.is_keyframe
    packet.stream = stream
    return packet
