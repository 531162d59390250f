"""What the cameras of a measurement send: numbered pictures of the street as H.264, encoded once, in packets of RTP."""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from benchmarks.material import street_images
from vidseg.runtime.frame import Image
from vidseg.runtime.sources.street.code import StreetCode, write_code

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext

SIZE_WH = (320, 240)
CLOCK_HZ = 90_000
MAX_PAYLOAD_BYTES = 1400
_FRAGMENT = 28
"""FU-A of RFC 6184, section 5.8."""


class Clip(msgspec.Struct, frozen=True):
    """A stream beforehand.

    A key frame a second.

    Attributes:
        fps: its rate.
        parameters: SPS and PPS, as a session description has them.
        frames: the bytes of each picture, interleaved on channel 0 as of RFC 2326, section 10.12.
    """

    fps: int
    parameters: str
    frames: list[bytes]


def write_clip(path: Path, count: int, fps: int) -> Path:
    """Encode `count` pictures, each with its number in its pixels."""
    pictures = street_images(30, SIZE_WH)
    context = _encoder(fps)
    frames: list[bytes] = []
    parameters = ""
    sequence = 0
    for number in range(count):
        picture = pictures[number % len(pictures)].copy()
        write_code(picture, StreetCode(number, 0))
        units = _encoded(context, picture, number)
        parameters = parameters or _parameters(units)
        payloads = [payload for unit in units for payload in _payloads(unit)]
        packets = [
            _interleaved(payload, sequence + place, number * CLOCK_HZ // fps, is_last=place == len(payloads) - 1)
            for place, payload in enumerate(payloads)
        ]
        frames.append(b"".join(packets))
        sequence += len(packets)
    path.write_bytes(msgspec.msgpack.encode(Clip(fps, parameters, frames)))
    return path


def read_clip(path: Path) -> Clip:
    """What `write_clip` wrote."""
    return msgspec.msgpack.decode(path.read_bytes(), type=Clip)


def _encoder(fps: int) -> VideoCodecContext:
    import av
    from av.video.codeccontext import VideoCodecContext

    context = av.CodecContext.create("libx264", "w")
    assert isinstance(context, VideoCodecContext)
    context.width, context.height, context.pix_fmt = *SIZE_WH, "yuv420p"
    context.time_base, context.framerate = Fraction(1, fps), Fraction(fps)
    context.options = {"bf": "0", "preset": "ultrafast", "tune": "zerolatency", "sc_threshold": "0"}
    context.gop_size = fps
    return context


def _encoded(context: VideoCodecContext, picture: Image, number: int) -> list[bytes]:
    """The units of a picture, which is a key frame where it is its turn."""
    import av

    frame = av.VideoFrame.from_ndarray(picture, "bgr24")
    frame.pts, frame.time_base = number, context.time_base
    (packet,) = context.encode(frame)
    assert packet.is_keyframe == (number % context.gop_size == 0)
    return _units(bytes(packet))


def _parameters(units: Sequence[bytes]) -> str:
    """Units of types 7 and 8, as RFC 6184, section 8.1 wants them."""
    return ",".join(base64.b64encode(unit).decode() for unit in units if unit[0] & 0x1F in {7, 8})


def _units(packet: bytes) -> list[bytes]:
    """Split at the start codes of ITU-T H.264, annex B."""
    return [unit for unit in re.split(rb"\x00\x00\x00?\x01", packet) if unit]


def _payloads(unit: bytes) -> list[bytes]:
    """A unit as it is where it is small, or in fragments."""
    if len(unit) <= MAX_PAYLOAD_BYTES:
        return [unit]
    starts = range(1, len(unit), MAX_PAYLOAD_BYTES)
    payloads = []
    for start in starts:
        place = 0x80 if start == starts[0] else 0x40 if start == starts[-1] else 0
        header = bytes([unit[0] & 0xE0 | _FRAGMENT, place | unit[0] & 0x1F])
        payloads.append(header + unit[start : start + MAX_PAYLOAD_BYTES])
    return payloads


def _interleaved(payload: bytes, sequence: int, stamp: int, *, is_last: bool) -> bytes:
    """A payload with the headers of RTP (RFC 3550, section 5.1) and of the connection."""
    kind = 96 | (0x80 if is_last else 0)
    packet = struct.pack(">BBHII", 0x80, kind, sequence & 0xFFFF, stamp & 0xFFFFFFFF, 1) + payload
    return struct.pack(">cBH", b"$", 0, len(packet)) + packet
