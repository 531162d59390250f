"""The process that opens and decodes one stream by FFmpeg, through PyAV: `python -m ... DESCRIPTOR`.

It has one socket to the process that started it: the request comes in, messages go out, places are given back. It ends
with that socket, whatever FFmpeg waits for. Pictures that find no free place are left out: it never waits for a reader.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

import msgspec

from vidseg.runtime.sources.streams.lag import LagMeter
from vidseg.runtime.sources.streams.messages import (
    MAX_PACKET_BYTES,
    BadPicture,
    Buffers,
    Ended,
    Message,
    Picture,
    Request,
)
from vidseg.runtime.sources.streams.shared_pictures import SharedPictures

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream

PLACES = 3
"""One that is being written, one that waits, one that is being read."""

MAX_SIDE_PX = 16384

_UNSPECIFIED_MATRIX = 2
"""AVCOL_SPC_UNSPECIFIED of libavutil/pixfmt.h."""


class Outlet:
    """The way to the reader: the socket, and the memory with the pictures."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._memory: SharedPictures | None = None
        self._size_wh = (0, 0)
        self._free: deque[int] = deque()
        self._generation = 0

    def request(self) -> Request:
        """What is to be opened; then a thread takes back places, and ends the process with the socket."""
        request = msgspec.json.decode(self._connection.recv(MAX_PACKET_BYTES), type=Request)
        threading.Thread(target=self._take_back, daemon=True).start()
        return request

    def say(self, message: Message, descriptor: int | None = None) -> None:
        """Send a message, with a descriptor of a file if there is one."""
        packet = msgspec.json.encode(message)
        if descriptor is None:
            self._connection.send(packet)
        else:
            socket.send_fds(self._connection, [packet], [descriptor])

    def show(self, frame: VideoFrame, index: int, decoded_ns: int, stamp_ns: int | None) -> None:
        """Give a picture in bgr24 on, or leave it out where no place is free."""
        if (frame.width, frame.height) != self._size_wh:
            self._make_room((frame.width, frame.height))
        with self._lock:
            place = self._free.popleft() if self._free else None
        if place is None:
            return
        assert self._memory is not None
        with self._memory.place(place) as shared:
            _copy_rows(frame, shared)
        self.say(Picture(place, index, decoded_ns, stamp_ns))

    def _make_room(self, size_wh: tuple[int, int]) -> None:
        if max(size_wh) > MAX_SIDE_PX:
            raise ValueError(f"pictures of {size_wh[0]}x{size_wh[1]}")
        if self._memory is not None:
            self._memory.close()
        self._memory = SharedPictures.create(size_wh, PLACES)
        with self._lock:
            self._size_wh = size_wh
            self._generation = (self._generation + 1) % 16
            self._free = deque(range(PLACES))
        self.say(Buffers(*size_wh, PLACES), self._memory.descriptor)

    def _take_back(self) -> None:
        """A byte for each place that is free again: its number, and in the upper half, of which memory."""
        while given_back := self._connection.recv(1):
            generation, place = divmod(given_back[0], 16)
            with self._lock:
                if generation == self._generation:
                    self._free.append(place)
        os._exit(0)  # whoever read is gone; FFmpeg may wait for ever


class StreamDecoder:
    """Demuxes and decodes a stream until it ends.

    Args:
        request: what to open.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._lag = LagMeter()
        self._index = 0
        self._start_pts: int | None = None

    def run(self, outlet: Outlet) -> Ended:
        """Give every picture to the outlet; returns why there are no more."""
        import av

        av.logging.set_level(av.logging.PANIC)  # its lines hold the address
        try:
            with self._opened() as container:
                stream = container.streams.video[0] if container.streams.video else None
                if stream is None or stream.codec_context is None:
                    return Ended("refused", "it has no video that this build of FFmpeg decodes")
                if container.duration is not None and not _is_live(container):
                    return Ended("refused", f"it is a recording of {container.duration / 1e6:.0f} s: download it")
                self._decode(container, stream, outlet)
        except av.FFmpegError as error:
            return Ended("refused" if _is_refusal(error) else "lost", error.strerror or type(error).__name__)
        except (OSError, ValueError) as error:
            return Ended("lost", str(error))
        return Ended("lost", "the stream has ended")

    def _opened(self) -> InputContainer:
        import av
        from av.codec.hwaccel import HWAccel

        request = self._request
        device = HWAccel(request.hardware, allow_software_fallback=True) if request.hardware else None
        return av.open(request.uri, options=dict(request.options), timeout=request.timeout_s, hwaccel=device)

    def _decode(self, container: InputContainer, stream: VideoStream, outlet: Outlet) -> None:
        from av.video.reformatter import VideoReformatter

        context = stream.codec_context
        context.thread_count = 1  # more of them hold pictures back
        reformatter = VideoReformatter()
        for packet in container.demux(stream):
            for frame in self._frames_of(packet, outlet):
                decoded_ns = time.monotonic_ns()
                stamp_ns = self._stamp_ns(frame)
                if stamp_ns is not None:
                    context.skip_frame = self._lag.decoded(decoded_ns / 1e9, stamp_ns / 1e9)
                outlet.show(_bgr(reformatter, frame), self._next_index(), decoded_ns, stamp_ns)
            if self._lag.skip != "DEFAULT" and packet.size and not packet.is_keyframe:
                self._index += 1  # about as many as are left out

    def _frames_of(self, packet: Packet[VideoStream], outlet: Outlet) -> Iterator[VideoFrame]:
        import av

        if packet.size and packet.is_corrupt:
            outlet.say(BadPicture(self._next_index(), "is incomplete"))
            return
        try:
            frames = packet.decode()
        except av.InvalidDataError as error:
            outlet.say(BadPicture(self._next_index(), error.strerror or "cannot be decoded"))
            return
        for frame in frames:
            if frame.is_corrupt:
                outlet.say(BadPicture(self._next_index(), "is damaged"))
            else:
                yield frame

    def _next_index(self) -> int:
        self._index += 1
        return self._index - 1

    def _stamp_ns(self, frame: VideoFrame) -> int | None:
        if frame.pts is None or frame.time_base is None:
            return None
        if self._start_pts is None:
            self._start_pts = frame.pts
        return int((frame.pts - self._start_pts) * Fraction(frame.time_base) * 1_000_000_000)


def _is_live(container: InputContainer) -> bool:
    return container.format.name in {"rtsp", "rtp", "mpjpeg"}


def _is_refusal(error: BaseException) -> bool:
    """True for what another try in a second will not mend: a wrong password, no such stream, no video."""
    import av

    kinds = ("HTTPBadRequestError", "HTTPUnauthorizedError", "HTTPForbiddenError", "HTTPNotFoundError",
             "HTTPOtherClientError", "ProtocolNotFoundError", "DecoderNotFoundError", "DemuxerNotFoundError",
             "StreamNotFoundError", "OptionNotFoundError", "InvalidDataError")  # fmt: skip
    return isinstance(error, tuple(getattr(av.error, kind) for kind in kinds if hasattr(av.error, kind)))


def _bgr(reformatter: VideoReformatter, frame: VideoFrame) -> VideoFrame:
    """The picture in bgr24, matrix and range undone; where no matrix is named, that which players take."""
    from av.video.reformatter import Colorspace

    assumed = Colorspace.ITU709 if frame.width > 1024 or frame.height > 576 else Colorspace.ITU601
    unnamed = frame.colorspace == _UNSPECIFIED_MATRIX
    return reformatter.reformat(frame, format="bgr24", src_colorspace=assumed if unnamed else None, threads=1)


def _copy_rows(frame: VideoFrame, target: memoryview) -> None:
    """The first plane without what FFmpeg puts behind each row. NumPy would add 13 MiB to the process."""
    plane, row = frame.planes[0], frame.width * 3
    with memoryview(plane) as source:
        if plane.line_size == row:
            target[:] = source[: len(target)]
            return
        for number in range(frame.height):
            first = number * plane.line_size
            target[number * row : (number + 1) * row] = source[first : first + row]


def main() -> None:
    """Serve the process that holds the other end of the socket."""
    outlet = Outlet(socket.socket(fileno=int(sys.argv[1])))
    outlet.say(StreamDecoder(outlet.request()).run(outlet))


if __name__ == "__main__":
    main()
