"""`StreamSource`: a camera of the network, or any other live stream that FFmpeg opens."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import monotonic_ns
from typing import TypeAlias

from vidseg.runtime.clock import Clock
from vidseg.runtime.errors import (
    FrameError,
    SourceError,
    SourceLostError,
    SourceOpenError,
    SourceRefusedError,
    UsageError,
)
from vidseg.runtime.frame import Frame, Image
from vidseg.runtime.secret_uri import SecretUri, secret_uri
from vidseg.runtime.sources.streams.messages import BadPicture, Ended, Picture, Request
from vidseg.runtime.sources.streams.options import NVDEC, OF_STREAMS, StreamOptions, split_options, stream_options
from vidseg.runtime.sources.streams.process import DecoderProcess

_RTSP = "rtsp,rtsps,rtp,udp,tcp,tls,srtp,crypto"
_HTTP = "http,https,tcp,tls,crypto,httpproxy"
PROTOCOLS: Mapping[str, str] = {
    "rtsp": _RTSP,
    "rtsps": _RTSP,
    "http": _HTTP,
    "https": _HTTP,
    "rtmp": "rtmp,tcp",
    "rtmps": "rtmps,tls,tcp",
    "srt": "srt,udp",
    "tcp": "tcp",
    "udp": "udp",
}
"""What a stream of each scheme may open: never files, whatever a playlist or a redirect says."""

FFMPEG_CHILD = (sys.executable, "-m", "vidseg.runtime.sources.streams.ffmpeg_child")

START_S = 60.0
"""For a decoder's process to load what it needs: 64 at a time take 10 s on two cores. No camera is to blame for it."""

Start: TypeAlias = Callable[[SecretUri, StreamOptions], DecoderProcess]
"""Starts the process that decodes."""


class StreamSource:
    """The pictures of a live stream, as 8 bit BGR, decoded in a process of its own.

    A stream that freezes, breaks off or sends nonsense is a `SourceLostError`, in time; opening the source again is a
    new epoch. Where decoding is slower than the stream, pictures are left out before the delay grows: their indices are
    missing. `captured_ns` is the time at which a picture was decoded; `stamp_ns` the stream's own time since its start.

    Args:
        address: of the stream; `name` is what of it may be shown.
        options: see `StreamOptions`.
        start: starts the process that decodes; FFmpeg's unless it is given.
    """

    def __init__(
        self,
        address: SecretUri,
        options: StreamOptions | None = None,
        start: Start | None = None,
    ) -> None:
        self._address = address
        self._options = options or StreamOptions()
        self._start = start or ffmpeg_process
        self._process: DecoderProcess | None = None
        self._first: Frame | None = None
        self._epoch = -1
        self._frames = 0
        self._good_ns = 0

    @classmethod
    def from_uri(cls, uri: str) -> StreamSource:
        """Take a URI such as `rtsp://user:password@camera/stream#transport=udp`; what stands behind `#` is for us.

        Raises:
            UsageError: it is not understood. The message repeats nothing that may be secret.
        """
        plain, values = split_options(uri, OF_STREAMS)
        options = stream_options(values, OF_STREAMS)
        address = secret_uri(plain)
        if address.scheme not in PROTOCOLS:
            raise UsageError("there are no such streams", "", f"Use {', '.join(PROTOCOLS)}.")
        if options.hardware != NVDEC:
            return cls(address, options)
        from vidseg.runtime.sources.gstreamer.process import nvdec_process

        if address.scheme != "rtsp":
            raise UsageError(f"hardware={NVDEC} decodes rtsp:// streams", f"{address.scheme}://", "Leave it out.")
        return cls(address, options, nvdec_process)

    @property
    def name(self) -> str:
        """The address without credentials."""
        return self._address.name

    @property
    def live(self) -> bool:
        """True: a stream does not wait."""
        return True

    def open(self, clock: Clock, stop: threading.Event) -> None:
        """Start decoding, and wait for the first picture.

        Raises:
            SourceRefusedError: a wrong password, no such stream, or nothing that can be decoded.
            SourceOpenError: it cannot be reached, gives nothing in time, or there is nothing that decodes.
        """
        self.close()
        self._clock, self._stop = clock, stop
        self._epoch += 1
        self._frames = 0
        try:
            self._process = self._start(self._address, self._options)
        except SourceError:
            raise
        except OSError as error:
            raise SourceOpenError(f"{self.name}: its decoder cannot be started", error.strerror or "") from error
        try:
            if (ended := self._process.await_ready(START_S, stop)) is not None:
                raise self._error_of(ended, SourceOpenError)
            self._first = self._awaited(self._options.open_s)
        except BaseException:
            self.close()
            raise

    def read(self) -> Frame | None:
        """The next frame; None when stopped.

        Raises:
            FrameError: this one is damaged; the next call goes on.
            SourceLostError: the stream has ended, broke off, has frozen, or gives nothing but damage.
        """
        if self._process is None or self._stop.is_set():
            return None
        if self._first is not None:
            first, self._first = self._first, None
            return first
        try:
            frame = self._next(self._options.stall_s)
        except FrameError:
            if monotonic_ns() - self._good_ns > self._options.stall_s * 1e9:
                got = f"{self._frames} good frames, then none for {self._options.stall_s:g} s"
                raise SourceLostError(f"{self.name}: the stream is damaged", got) from None
            raise
        if frame is None and not self._stop.is_set():
            got = f"{self._frames} frames, then nothing for {self._options.stall_s:g} s"
            raise SourceLostError(f"{self.name}: the stream has frozen", got)
        return frame

    def close(self) -> None:
        """End the process that decodes. Idempotent."""
        process, self._process, self._first = self._process, None, None
        if process is not None:
            process.close()

    def _awaited(self, timeout_s: float) -> Frame | None:
        """The first good frame: a stream begins in the middle of things. None when stopped."""
        deadline_ns = monotonic_ns() + round(timeout_s * 1e9)
        frame = None
        while frame is None and not self._stop.is_set():
            left_s = (deadline_ns - monotonic_ns()) / 1e9
            if left_s <= 0:
                mend = "Check the address, the network and the camera."
                raise SourceOpenError(f"{self.name}: no frame comes", f"nothing in {timeout_s:g} s", mend)
            with suppress(FrameError):
                frame = self._next(left_s, SourceOpenError)
        return frame

    def _next(self, timeout_s: float, lost: type[SourceError] = SourceLostError) -> Frame | None:
        assert self._process is not None
        found = self._process.next(timeout_s, self._stop)
        if found is None:
            return None
        if isinstance(found, Ended):
            raise self._error_of(found, lost)
        if isinstance(found, BadPicture):
            raise FrameError(f"{self.name}: frame {found.index} {found.text}", "", "It is left out.")
        return self._frame(*found)

    def _error_of(self, ended: Ended, lost: type[SourceError]) -> SourceError:
        if ended.why == "refused":
            return SourceRefusedError(f"{self.name}: the stream is refused", ended.text, ended.do)
        return lost(f"{self.name}: no {'more ' if self._frames else ''}frames come", ended.text, ended.do)

    def _frame(self, picture: Picture, image: Image) -> Frame:
        self._frames += 1
        self._good_ns = monotonic_ns()
        captured_ns = self._clock.now_ns() - max(monotonic_ns() - picture.decoded_ns, 0)
        stamp_ns, stamp_clock = picture.stamp_ns, "pts"
        if stamp_ns is None:
            stamp_ns, stamp_clock = self._clock.wall_ns(), "wall"
        return Frame(self.name, self._epoch, picture.index, captured_ns, stamp_ns, stamp_clock, image)


def ffmpeg_process(address: SecretUri, options: StreamOptions) -> DecoderProcess:
    """A process that opens a stream of the network by FFmpeg.

    Raises:
        OSError: it cannot be started.
    """
    # Looking at more of a stream before the first picture costs 2 s with RTSP, which describes itself. `nobuffer` would
    # throw away what was looked at, and wait for the next key frame.
    wishes = {"protocol_whitelist": PROTOCOLS[address.scheme], "flags": "low_delay", "fpsprobesize": "0"}
    if address.scheme in {"rtsp", "rtsps"}:
        wishes |= {"rtsp_transport": options.transport, "allowed_media_types": "video", "analyzeduration": "100000"}
    timeout_s = max(options.open_s, options.stall_s)
    request = Request(uri=address.uri, options=wishes, timeout_s=timeout_s, hardware=options.hardware)
    return DecoderProcess(FFMPEG_CHILD, request, address.clean)
