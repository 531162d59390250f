"""`PublishSink`: the pictures as a live stream on an RTSP server."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from vidseg.runtime.clock import Clock, SystemClock
from vidseg.runtime.errors import SinkError, SourceLostError, SourceRefusedError, UsageError
from vidseg.runtime.frame import Frame, Image, Segmentation, SourceStatus
from vidseg.runtime.pipeline.retry import Backoff
from vidseg.runtime.secret_uri import SecretUri, secret_uri
from vidseg.runtime.sinks import Sink
from vidseg.runtime.sinks.publish_child import MAX_PICTURE_BYTES, Answer, Request, packed
from vidseg.runtime.sinks.recording.encoder import PictureEncoder
from vidseg.runtime.sinks.recording.packets import EncodedPicture
from vidseg.runtime.sinks.timeline import Timeline

log = logging.getLogger(__name__)

CHILD = "vidseg.runtime.sinks.publish_child"

TIMEOUT_S = 5.0
"""For each wait on the server; one that takes nothing for twice as long is lost."""

END_S = 1.0
"""How long the process that sends may take to say goodbye."""

MAX_WAITING_BYTES = 1 << 20
"""What may wait for the server; behind it pictures are left out up to the next keyframe. 2 s of 720p."""

MAX_ANSWER_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class PublishStatistics:
    """A stream at one instant.

    Attributes:
        published: pictures that were handed to the connection.
        not_published: pictures for which there was none, or which came faster than it took them.
        trouble: why the stream is not there now; "" where all is well.
    """

    published: int = 0
    not_published: int = 0
    trouble: str = "not connected yet"


class PublishSink(Sink):
    """Sends the drawn pictures of one source to an RTSP server (ANNOUNCE and RECORD of RFC 2326, over TCP).

    A server that is away, says no or stalls is told once and tried again, for ever, by a process that nothing waits
    for. What could not be sent is counted. With several sources the first one that gives a picture is published; when
    that is removed, the stream ends and the next one begins another.

    Args:
        uri: `rtsp://user:password@host:554/path`, or `rtsps://`. Credentials are in no message and no argument.
        clock: for a test.

    Raises:
        UsageError: the address is not understood.
    """

    def __init__(self, uri: str, clock: Clock | None = None) -> None:
        self._address = secret_uri(uri)
        if self._address.scheme not in {"rtsp", "rtsps"}:
            raise UsageError("a stream is published to an rtsp:// or rtsps:// address", f"{self._address.scheme}://")
        self._clock = clock or SystemClock()
        self._source: str | None = None
        self._ignored: set[str] = set()
        self._timeline = Timeline()
        self._encoder: PictureEncoder | None = None
        self._link: _Link | None = None
        self._backoff = Backoff()
        self._retry_ns = 0
        self._needs_keyframe = True
        self._statistics = PublishStatistics()

    @property
    def name(self) -> str:
        """The address without credentials."""
        return self._address.name

    @property
    def wants_picture(self) -> bool:
        """True."""
        return True

    @property
    def queue_size(self) -> int:
        """2: what waits longer is out of date."""
        return 2

    def statistics(self) -> PublishStatistics:
        """The stream now. May be called from any thread."""
        return self._statistics

    def write(self, segmentation: Segmentation, picture: Image | None) -> None:
        """Send one picture, or count it. Never waits for the server.

        Raises:
            SinkError: PyAV has no encoder.
        """
        from av import FFmpegError

        assert picture is not None
        if not self._is_ours(segmentation.frame.source):
            return
        try:
            count = self._send(segmentation.frame, picture)
        except FFmpegError as error:
            raise SinkError(f"{self.name}: a picture cannot be encoded", str(error)) from error
        seen = self._statistics
        trouble = seen.trouble if self._link is None or not self._link.is_ready else ""
        self._statistics = PublishStatistics(seen.published + count, seen.not_published + (not count), trouble)

    def notify(self, status: SourceStatus) -> None:
        """Forget a source that was removed, and with the one that is shown its stream."""
        if status.state != "removed":
            return
        self._ignored.discard(status.source)
        if status.source == self._source:
            self._unlink(END_S)
            self._source, self._encoder, self._timeline = None, None, Timeline()
            self._ignored.clear()
            seen = self._statistics
            self._statistics = PublishStatistics(seen.published, seen.not_published, "its source was removed")

    def close(self) -> None:
        """Say goodbye to the server, within a second. Idempotent."""
        self._unlink(END_S)

    def _unlink(self, grace_s: float) -> None:
        if self._link is not None:
            self._link.close(grace_s)
            self._link = None

    def _is_ours(self, source: str) -> bool:
        self._source = self._source or source
        if source != self._source and source not in self._ignored:
            self._ignored.add(source)
            log.warning("%s shows %s only: %s is not published", self.name, self._source, source)
        return source == self._source

    def _send(self, frame: Frame, picture: Image) -> int:
        """Returns how many pictures were handed over: 1 or 0."""
        time_ns, size_wh = self._timeline.place_ns(frame), (picture.shape[1], picture.shape[0])
        if self._encoder is None or self._encoder.size_wh != size_wh:
            self._unlink(END_S)  # the stream's description has its size
            self._encoder = PictureEncoder(size_wh)
        if self._link is None:
            if self._clock.now_ns() >= self._retry_ns:
                (keyframe,) = self._encoder.encode(picture, time_ns, frame.captured_ns, keyframe=True)
                self._link = _Link(self._address, keyframe, self._clock.now_ns)
                self._needs_keyframe = True
            return 0
        if not self._link.check():
            self._lose(self._link.ended)
            return 0
        return self._hand_over(self._link, self._encoder, picture, (time_ns, frame.captured_ns))

    def _hand_over(self, link: _Link, encoder: PictureEncoder, picture: Image, times_ns: tuple[int, int]) -> int:
        if not link.is_ready or link.waiting_bytes > (0 if self._needs_keyframe else MAX_WAITING_BYTES):
            self._needs_keyframe = True
            return 0
        if self._statistics.trouble:
            log.info("%s: the stream is there", self.name)
        encoded = list(encoder.encode(picture, *times_ns, keyframe=self._needs_keyframe))
        for one in encoded:
            link.send(one)
        self._needs_keyframe = False
        self._backoff.works()
        return len(encoded)

    def _lose(self, ended: Answer) -> None:
        self._unlink(0)
        kind = SourceRefusedError if ended.state == "refused" else SourceLostError
        self._retry_ns = self._clock.now_ns() + round(self._backoff.wait_s(kind(self.name)) * 1e9)
        text = self._address.clean(ended.text)
        if self._statistics.trouble != text:
            log.warning("%s: nothing is published: %s. Everything else goes on; it is tried again.", self.name, text)
        seen = self._statistics
        self._statistics = PublishStatistics(seen.published, seen.not_published, text)


class _Link:
    """A process that sends one stream, and the way to it. Nothing here waits, except `close`."""

    def __init__(self, address: SecretUri, keyframe: EncodedPicture, now_ns: Callable[[], int]) -> None:
        self.is_ready = False
        self.ended = Answer("lost", "it does not answer")
        self._now_ns = now_ns
        self._moved_ns = now_ns()
        self._waiting = bytearray()
        self._said = bytearray()
        self._connection, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-m", CHILD, str(theirs.fileno())],
                cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()], start_new_session=True,
            )  # fmt: skip
        self._connection.setblocking(False)
        self._waiting += msgspec.json.encode(Request(address.uri, keyframe.codec, TIMEOUT_S)) + b"\n"
        self.send(keyframe)

    @property
    def waiting_bytes(self) -> int:
        """What the process has not taken yet."""
        return len(self._waiting)

    def send(self, picture: EncodedPicture) -> None:
        """Queue a picture for the process."""
        if len(picture.data) <= MAX_PICTURE_BYTES:
            self._waiting += packed(picture)
            self._flush()

    def check(self) -> bool:
        """Hear of the process; False where the stream is over, see `ended`."""
        try:
            while found := self._connection.recv(MAX_ANSWER_BYTES):
                self._said += found
        except BlockingIOError:
            found = b"-"
        except OSError:
            found = b""
        *lines, rest = bytes(self._said[:MAX_ANSWER_BYTES]).split(b"\n")
        self._said = bytearray(rest)
        for line in lines:
            self._hear(msgspec.json.decode(line, type=Answer))
        self._flush()
        is_stuck = self._now_ns() - self._moved_ns > 2 * TIMEOUT_S * 1e9
        return bool(found) and not (is_stuck and (self._waiting or not self.is_ready))

    def close(self, grace_s: float = 0.0) -> None:
        """End the stream and the process, which has so long to say goodbye. Idempotent."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
        try:
            self._process.wait(grace_s if self.is_ready else 0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(END_S)
        self._connection.close()

    def _hear(self, answer: Answer) -> None:
        if answer.state == "ready":
            self.is_ready, self._moved_ns = True, self._now_ns()
        else:
            self.ended = answer

    def _flush(self) -> None:
        with suppress(OSError):  # full: later; gone: `check` finds out
            while self._waiting:
                del self._waiting[: self._connection.send(self._waiting)]
                self._moved_ns = self._now_ns()
        if self.is_ready and not self._waiting:
            self._moved_ns = self._now_ns()
