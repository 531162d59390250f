"""`PageServer`: an HTTP server in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from vidseg.runtime.errors import SinkError
from vidseg.runtime.web.access import MAX_HEADER_BYTES
from vidseg.runtime.web.address import WebAddress
from vidseg.runtime.web.application import Application
from vidseg.runtime.web.connections import Connection, Connections

if TYPE_CHECKING:
    from uvicorn import Server

log = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 2.0
KEEP_ALIVE_S = 5


class PageServer:
    """Serves an application until `close()`.

    Args:
        listener: a socket that listens; owned by the server from here on.
        application: see there.
        connections: its limits.

    Raises:
        SinkError: a package is missing.
    """

    def __init__(self, listener: socket.socket, application: Application, connections: Connections) -> None:
        self._listener = listener
        self._application = application
        self._connections = connections
        self._server = _uvicorn_server(application, connections)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vidseg page", daemon=True)
        self._thread.start()
        self._started.wait()

    @property
    def alive(self) -> bool:
        """False once it has ended."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Cut all connections off and end the thread. Idempotent.

        Raises:
            SinkError: it did not end in two seconds.
        """
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._stop)
        self._thread.join(CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            raise SinkError("the page's server did not end", f"still running after {CLOSE_TIMEOUT_S:g} s")

    def _stop(self) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._connections.abort()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:  # noqa: BLE001 - the next write tells the pipeline
            log.error("the page's server has ended: %s: %s", type(error).__name__, error)
        finally:
            self._listener.close()
            self._started.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(_log_line)
        tasks = [asyncio.create_task(self._application.teller.tell()), asyncio.create_task(self._connections.watch())]
        self._started.set()
        try:
            await self._server.serve(sockets=[self._listener])
        finally:
            for task in tasks:
                task.cancel()
            await self._application.peers.close()


def listening_socket(address: WebAddress) -> socket.socket:
    """A socket at an address.

    Raises:
        SinkError: the port is taken, or there is no such address here.
    """
    host = "127.0.0.1" if address.host == "localhost" else address.host
    try:
        return socket.create_server((host, address.port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise SinkError(
            f"{address.name}: the page cannot be served",
            os.strerror(error.errno) if error.errno else str(error),
            "Take another port, or 0 for any that is free.",
        ) from error


def _uvicorn_server(application: Application, connections: Connections) -> Server:
    try:
        from uvicorn import Config, Server
        from uvicorn.protocols.http.h11_impl import H11Protocol

        app = application.asgi()
    except ImportError as error:
        raise SinkError("web:// lacks a package", error.name or "", "Install it: pip install 'vidseg[web]'.") from error
    config = Config(
        cast("Any", app),
        http=cast("type[asyncio.Protocol]", partial(Connection, connections, H11Protocol)),
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
    )
    return Server(config)


def _log_line(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    log.warning("the page's server: %s", context["message"] if error is None else f"{type(error).__name__}: {error}")
