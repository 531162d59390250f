"""`Connections`: limits that an HTTP server does not set by itself: how many, and how long nothing may happen."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 64

REQUEST_TIMEOUT_S = 10.0
"""For a request to arrive as a whole."""

STALL_TIMEOUT_S = 10.0
"""Without a byte that the other side takes, while there are some for it."""

CHECK_INTERVAL_S = 1.0

SEND_BUFFER_BYTES = 256 * 1024
"""Of the system, for each connection. What waits there is old when it is seen: by default it is megabytes, seconds of a
slow viewer's pictures."""

BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Connections:
    """All connections of a server. Used by its thread.

    Args:
        max_connections, request_timeout_s, stall_timeout_s: see the constants.
    """

    def __init__(
        self,
        max_connections: int = MAX_CONNECTIONS,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        stall_timeout_s: float = STALL_TIMEOUT_S,
    ) -> None:
        self.max_connections = max_connections
        self.request_timeout_s = request_timeout_s
        self.stall_timeout_s = stall_timeout_s
        self.open: set[Connection] = set()
        self.closing = False

    async def watch(self) -> None:
        """Cut off who is too slow, for ever."""
        interval_s = min(CHECK_INTERVAL_S, self.request_timeout_s / 4, self.stall_timeout_s / 4)
        while True:
            await asyncio.sleep(interval_s)
            now = asyncio.get_running_loop().time()
            for connection in list(self.open):
                connection.check(now)

    def abort(self) -> None:
        """Cut all off, and take no more."""
        self.closing = True
        for connection in list(self.open):
            connection.abort()


class Connection(asyncio.Protocol):
    """Stands between a socket and the protocol that serves it.

    Args:
        connections: that it belongs to.
        make_inner: makes that protocol.
        arguments: for `make_inner`.
    """

    def __init__(self, connections: Connections, make_inner: Callable[..., H11Protocol], **arguments: Any) -> None:
        self._connections = connections
        self._inner = make_inner(**arguments)
        self._transport: asyncio.Transport | None = None
        self._cycle: object = None
        self._waits_since = self._moved_at = asyncio.get_running_loop().time()
        self._unsent = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or say that there are too many."""
        assert isinstance(transport, asyncio.Transport)
        connections = self._connections
        if connections.closing or len(connections.open) >= connections.max_connections:
            transport.write(BUSY)
            transport.close()
            return
        self._transport = transport
        connections.open.add(self)
        transport.set_write_buffer_limits(high=0)  # who writes waits until the system has taken all of it
        with suppress(OSError):
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        if self._transport is not None:
            self._connections.open.discard(self)
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass on; cut off who sends what is no HTTP in the middle of an answer: there is no way to refuse it then."""
        import h11

        if self._transport is not None:
            try:
                self._inner.data_received(data)
            except h11.LocalProtocolError:
                self.abort()

    def eof_received(self) -> None:
        """Pass on; the connection is closed."""
        if self._transport is not None:
            self._inner.eof_received()

    def pause_writing(self) -> None:
        """Pass on."""
        if self._transport is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on."""
        if self._transport is not None:
            self._inner.resume_writing()

    def check(self, now: float) -> None:
        """Cut it off where nothing has happened for too long. `now` is the loop's time in seconds."""
        assert self._transport is not None
        unsent = self._transport.get_write_buffer_size()
        if unsent != self._unsent or not unsent:
            self._unsent, self._moved_at = unsent, now
        if not self._awaits_request() or self._inner.cycle is not self._cycle:
            self._cycle, self._waits_since = self._inner.cycle, now
        limits = self._connections
        if now - self._moved_at > limits.stall_timeout_s or now - self._waits_since > limits.request_timeout_s:
            self.abort()

    def abort(self) -> None:
        """Close it without a word."""
        assert self._transport is not None
        self._transport.abort()

    def _awaits_request(self) -> bool:
        """True while a request has not come, or not as a whole, or one more waits behind an answer without an end.

        While it does, nothing is read, and the other side may have closed.
        """
        import h11

        return self._inner.flow.read_paused or self._inner.conn.their_state in {h11.IDLE, h11.SEND_BODY}
