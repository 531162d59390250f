"""The process that opens and decodes one stream by FFmpeg, through PyAV: `python -m ... DESCRIPTOR`.

It has one socket to the process that started it: the request comes in, messages go out, places are given back. It ends
with that socket, whatever FFmpeg waits for. Pictures that find no free place are left out: it never waits for a reader.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from vidseg.runtime.sources.streams.lag import LagMeter
from vidseg.runtime.sources.streams.messages import Ended, Request
from vidseg.runtime.sources.streams.outlet import Outlet

if TYPE_CHECKING:
    import av
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream

_UNSPECIFIED_MATRIX = 2
"""AVCOL_SPC_UNSPECIFIED of libavutil/pixfmt.h."""


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
        outlet.ready()
        try:
            with self._opened() as container:
                stream = container.streams.video[0] if container.streams.video else None
                if stream is None or stream.codec_context is None:
                    return Ended("refused", "it has no video that this build of FFmpeg decodes")
                if container.duration is not None and not _is_live(container):
                    return Ended("refused", f"it is a recording of {container.duration / 1e6:.0f} s: download it")
                self._decode(container, stream, outlet)
        except av.FFmpegError as error:
            return self._why(error)
        except (OSError, ValueError) as error:
            return Ended("lost", str(error))
        return Ended("lost", "the stream has ended")

    def _why(self, error: av.FFmpegError) -> Ended:
        import av

        text = error.strerror or type(error).__name__
        if isinstance(error, av.error.HTTPUnauthorizedError | av.error.HTTPForbiddenError):
            return Ended("refused", text, "Check user and password.")
        if isinstance(error, av.error.HTTPNotFoundError):
            return Ended("refused", text, "Check the path.")
        if not _is_refusal(error) and not _is_found(self._request.uri):
            return Ended("lost", "nobody knows its host", "Check the name, and the network.")
        return Ended("refused" if _is_refusal(error) else "lost", text)

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
            before = self._index
            for frame in self._frames_of(packet, outlet):
                decoded_ns = time.monotonic_ns()
                stamp_ns = self._stamp_ns(frame)
                if stamp_ns is not None:
                    context.skip_frame = self._lag.decoded(decoded_ns / 1e9, stamp_ns / 1e9)
                picture = _bgr(reformatter, frame)
                size_wh, times_ns = (picture.width, picture.height), (decoded_ns, stamp_ns)
                outlet.show(size_wh, partial(_copy_rows, picture), self._next_index(), times_ns)
            if self._index == before and self._lag.skip != "DEFAULT" and packet.size and not packet.is_keyframe:
                self._index += 1  # it was left out

    def _frames_of(self, packet: Packet[VideoStream], outlet: Outlet) -> Iterator[VideoFrame]:
        import av

        if packet.size and packet.is_corrupt:
            outlet.bad(self._next_index(), "is incomplete")
            return
        try:
            frames = packet.decode()
        except av.InvalidDataError as error:
            outlet.bad(self._next_index(), error.strerror or "cannot be decoded")
            return
        for frame in frames:
            if frame.is_corrupt:
                outlet.bad(self._next_index(), "is damaged")
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


def _is_found(uri: str) -> bool:
    """True where the host of an address has one in the network: FFmpeg does not tell that from other failures."""
    try:
        socket.getaddrinfo(urlsplit(uri).hostname or "", None)
    except (OSError, UnicodeError, ValueError):
        return False
    return True


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
    outlet = Outlet(int(sys.argv[1]))
    ended = StreamDecoder(msgspec.json.decode(outlet.request(), type=Request)).run(outlet)
    outlet.ended(ended.why, ended.text, ended.do)


if __name__ == "__main__":
    main()
