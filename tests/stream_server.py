"""A camera of the network that does what a test says: sends bytes, stops in the middle, or never answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, TypeAlias

from tests.media import moving_blocks, write_video

Then: TypeAlias = Literal["close", "hold"]


def transport_stream(folder: Path, count: int = 50, size_wh: tuple[int, int] = (96, 64), rate: int = 25) -> bytes:
    """An MPEG transport stream of moving blocks, a key frame every ten pictures."""
    path = folder / f"{size_wh[0]}x{size_wh[1]}-{count}.ts"
    options = {"g": "10", "bf": "0", "preset": "ultrafast"}
    write_video(path, moving_blocks(count, size_wh), rate=rate, muxer="mpegts", codec_options=options)
    return path.read_bytes()


class StreamServer:
    """Listens on loopback; sends to everybody who connects.

    Args:
        content: what each connection gets, the last one for all that follow; after an HTTP header where `http`.
        then: close the connection behind it, or hold it open.
        http: the status with which a request is answered; None: this is no HTTP.
        lasts_s: time over which the content is sent, as a camera does; else at once.
    """

    def __init__(
        self, content: Sequence[bytes], then: Then = "close", *, http: str | None = None, lasts_s: float = 0
    ) -> None:
        self._content = list(content)
        self._then = then
        self._http = http
        self._lasts_s = lasts_s
        self._closed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._held: list[socket.socket] = []
        self.connections = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def uri(self) -> str:
        return f"{'http' if self._http else 'tcp'}://127.0.0.1:{self.port}" + ("/live.ts" if self._http else "")

    def __enter__(self) -> StreamServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._held:
            connection.close()
        self._thread.join(10)

    def _send(self, connection: socket.socket, content: bytes) -> None:
        parts = 100 if self._lasts_s else 1
        size = -(-len(content) // parts)
        for first in range(0, len(content), max(size, 1)):
            connection.sendall(content[first : first + size])
            self._closed.wait(self._lasts_s / parts)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            content = self._content[min(self.connections, len(self._content) - 1)]
            self.connections += 1
            try:
                if self._http:
                    connection.recv(4096)
                    connection.sendall(f"HTTP/1.1 {self._http}\r\nContent-Type: video/mp2t\r\n\r\n".encode())
                self._send(connection, content)
            except OSError:
                pass
            if self._then == "hold":
                self._held.append(connection)
            else:
                connection.close()
