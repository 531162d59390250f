"""The process that sends an encoded stream to an RTSP server: `python -m ... DESCRIPTOR`.

PyAV keeps Python's lock while FFmpeg connects: a server that does not answer would hold up every thread of the process
for as long as its time-out (2.1 s of 2.1 s were measured). Here it holds up nobody. The process ends with the
connection to the one that started it.
"""

from __future__ import annotations

import signal
import socket
import struct
import sys
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from vidseg.runtime.sinks.recording.packets import EncodedPicture, add_video, packet_of

if TYPE_CHECKING:
    from av.container import OutputContainer

HEADER = struct.Struct(">IqB")
"""Before each picture: bytes that follow, time in 1/60000 s, whether it is a keyframe."""

MAX_PICTURE_BYTES = 64 << 20

REFUSALS = ("HTTPBadRequestError", "HTTPUnauthorizedError", "HTTPForbiddenError", "HTTPNotFoundError",
            "HTTPOtherClientError", "ProtocolNotFoundError")  # fmt: skip
"""PyAV's names for what another try in a second will not mend."""


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line, to the child.

    Attributes:
        uri: with credentials; nothing else of the process shows them.
        codec: see `EncodedPicture`.
        timeout_s: for each wait of FFmpeg's.
    """

    uri: str
    codec: str
    timeout_s: float


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line from the child.

    Attributes:
        state: the server takes the stream; the connection is gone; or the server says no.
        text: the reason, which may hold parts of the address.
    """

    state: str
    text: str = ""


def packed(picture: EncodedPicture) -> bytes:
    """A picture for the way to the child."""
    return HEADER.pack(len(picture.data), picture.pts, picture.is_keyframe) + picture.data


class Publisher:
    """Sends what comes from the parent.

    Args:
        connection: to the parent.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._input: BinaryIO = connection.makefile("rb")
        self._request = msgspec.json.decode(self._input.readline(), type=Request)

    def run(self) -> Answer:
        """Connect, and send until the parent ends or the server is gone; the answer says why."""
        import av

        av.logging.set_level(av.logging.PANIC)  # its lines hold the address
        options = {"rtsp_transport": "tcp", "timeout": str(round(self._request.timeout_s * 1e6))}
        try:
            with av.open(self._request.uri, "w", format="rtsp", options=options) as container:
                self._send(container)
        except av.FFmpegError as error:
            kinds = tuple(getattr(av.error, name) for name in REFUSALS if hasattr(av.error, name))
            return Answer("refused" if isinstance(error, kinds) else "lost", error.strerror or type(error).__name__)
        except (OSError, ValueError) as error:
            return Answer("lost", str(error))
        return Answer("lost", "the end")

    def say(self, answer: Answer) -> None:
        """Tell the parent."""
        self._connection.sendall(msgspec.json.encode(answer) + b"\n")

    def _send(self, container: OutputContainer) -> None:
        keyframe = self._read()
        if keyframe is None:
            return
        stream = add_video(container, keyframe)
        container.start_encoding()
        self.say(Answer("ready"))
        first: EncodedPicture | None = None
        while (picture := self._read()) is not None:
            first = first or picture
            container.mux(packet_of(picture, stream, first.pts))

    def _read(self) -> EncodedPicture | None:
        header = self._input.read(HEADER.size)
        if len(header) < HEADER.size:
            return None
        size, pts, is_keyframe = HEADER.unpack(header)
        if size > MAX_PICTURE_BYTES:
            raise ValueError(f"a picture of {size} bytes")
        return EncodedPicture(self._input.read(size), self._request.codec, pts, 0, bool(is_keyframe))


def main() -> None:
    """Serve the process that holds the other end of the socket, until it closes that.

    Signals that somebody sends to all processes of a group or a service are for that one: it ends this one.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    publisher = Publisher(socket.socket(fileno=int(sys.argv[1])))
    answer = publisher.run()
    try:
        publisher.say(answer)
    except OSError:
        sys.exit(1)  # nobody listens any more


if __name__ == "__main__":
    main()
