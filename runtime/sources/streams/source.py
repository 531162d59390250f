"""`StreamSource`: a camera of the network, or any other live stream that FFmpeg opens."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic_ns

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

_OPTIONS = "#transport=tcp|udp&stall_s=5&open_s=10&hardware=cuda|vaapi"

FFMPEG_CHILD = "vidseg.runtime.sources.streams.ffmpeg_child"


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How a stream is read.

    Attributes:
        transport: of RTSP: `tcp` loses nothing, `udp` is for those that offer nothing else.
        stall_s: a stream that gives nothing for so long is lost.
        open_s: the first picture has to come within this.
        hardware: FFmpeg's name of a device that decodes, such as `cuda` or `vaapi`, where this build has it; "" for the
            processor.
    """

    transport: str = "tcp"
    stall_s: float = 5.0
    open_s: float = 10.0
    hardware: str = ""

    def __post_init__(self) -> None:
        if self.transport not in {"tcp", "udp"}:
            raise UsageError("a stream's transport is tcp or udp", self.transport)
        for name, value in (("stall_s", self.stall_s), ("open_s", self.open_s)):
            if not 0.1 <= value <= 600:
                raise UsageError(f"{name} is a number of seconds from 0.1 to 600", f"{value:g}")


class StreamSource:
    """The pictures of a live stream, as 8 bit BGR, decoded in a process of its own.

    A stream that freezes, breaks off or sends nonsense is a `SourceLostError`, in time; opening the source again is a
    new epoch. Where decoding is slower than the stream, pictures are left out before the delay grows: their indices are
    missing. `captured_ns` is the time at which a picture was decoded; `stamp_ns` the stream's own time since its start.

    Args:
        address: of the stream; `name` is what of it may be shown.
        options: see `StreamOptions`.
        make_process: starts the process that decodes.
    """

    def __init__(
        self,
        address: SecretUri,
        options: StreamOptions | None = None,
        make_process: Callable[[Request, Callable[[str], str]], DecoderProcess] | None = None,
    ) -> None:
        self._address = address
        self._options = options or StreamOptions()
        self._make_process = make_process or (lambda request, clean: DecoderProcess(FFMPEG_CHILD, request, clean))
        self._process: DecoderProcess | None = None
        self._first: Frame | None = None
        self._epoch = -1
        self._frames = 0

    @classmethod
    def from_uri(cls, uri: str) -> StreamSource:
        """Take a URI such as `rtsp://user:password@camera/stream#transport=udp`; what stands behind `#` is for us.

        Raises:
            UsageError: it is not understood. The message repeats nothing that may be secret.
        """
        plain, options = _options_of(uri)
        address = secret_uri(plain)
        if address.scheme not in PROTOCOLS:
            raise UsageError(f"there are no {address.scheme}:// sources", "", f"Use {', '.join(PROTOCOLS)}.")
        return cls(address, options)

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
            SourceOpenError: it cannot be reached, or gives nothing in time.
        """
        self.close()
        self._clock, self._stop = clock, stop
        self._epoch += 1
        self._frames = 0
        self._process = self._make_process(self._request(), self._address.clean)
        try:
            self._first = self._awaited(self._options.open_s)
        except BaseException:
            self.close()
            raise

    def read(self) -> Frame | None:
        """The next frame; None when stopped.

        Raises:
            FrameError: this one is damaged; the next call goes on.
            SourceLostError: the stream has ended, broke off or has frozen.
        """
        if self._process is None or self._stop.is_set():
            return None
        if self._first is not None:
            first, self._first = self._first, None
            return first
        frame = self._next(self._options.stall_s)
        if frame is None and not self._stop.is_set():
            got = f"{self._frames} frames, then nothing for {self._options.stall_s:g} s"
            raise SourceLostError(f"{self.name}: the stream has frozen", got)
        return frame

    def close(self) -> None:
        """End the process that decodes. Idempotent."""
        process, self._process, self._first = self._process, None, None
        if process is not None:
            process.close()

    def _request(self) -> Request:
        # Looking at more of a stream before the first picture costs 2 s with RTSP, which describes itself. `nobuffer`
        # would throw away what was looked at, and wait for the next key frame.
        options = {"protocol_whitelist": PROTOCOLS[self._address.scheme], "flags": "low_delay", "fpsprobesize": "0"}
        if self._address.scheme in {"rtsp", "rtsps"}:
            options |= {"rtsp_transport": self._options.transport, "allowed_media_types": "video"}
            options["analyzeduration"] = "100000"
        return Request(
            uri=self._address.uri,
            options=options,
            timeout_s=max(self._options.open_s, self._options.stall_s),
            hardware=self._options.hardware,
        )

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
            if found.why == "refused":
                raise SourceRefusedError(f"{self.name}: the stream is refused", found.text)
            raise lost(f"{self.name}: no {'more ' if self._frames else ''}frames come", found.text)
        if isinstance(found, BadPicture):
            raise FrameError(f"{self.name}: frame {found.index} {found.text}", "", "It is left out.")
        return self._frame(*found)

    def _frame(self, picture: Picture, image: Image) -> Frame:
        self._frames += 1
        captured_ns = self._clock.now_ns() - max(monotonic_ns() - picture.decoded_ns, 0)
        stamp_ns, stamp_clock = picture.stamp_ns, "pts"
        if stamp_ns is None:
            stamp_ns, stamp_clock = self._clock.wall_ns(), "wall"
        return Frame(self.name, self._epoch, picture.index, captured_ns, stamp_ns, stamp_clock, image)


def _options_of(uri: str) -> tuple[str, StreamOptions]:
    """The address, and what stands behind its last `#`, where that is for us."""
    plain, mark, text = uri.rpartition("#")
    if not mark or not re.fullmatch(r"(?:[a-z_]+=[a-z0-9.]*)(?:&[a-z_]+=[a-z0-9.]*)*", text):
        return uri, StreamOptions()
    values = dict(pair.split("=", 1) for pair in text.split("&"))
    unknown = sorted(values.keys() - {"transport", "stall_s", "open_s", "hardware"})
    if unknown:
        raise UsageError(f"a stream has no option {unknown[0]!r}", "", f"Use {_OPTIONS}.")
    try:
        return plain, StreamOptions(
            transport=values.get("transport", "tcp"),
            stall_s=float(values.get("stall_s", "5")),
            open_s=float(values.get("open_s", "10")),
            hardware=values.get("hardware", ""),
        )
    except UsageError:
        raise
    except ValueError:
        raise UsageError("a stream's option is not understood", text, f"Use {_OPTIONS}.") from None
