"""`WebSink`: live pictures, charts and controls on a page in a browser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vidseg.runtime.clock import Clock, SystemClock
from vidseg.runtime.errors import SinkError
from vidseg.runtime.frame import Image, Segmentation, SourceStatus
from vidseg.runtime.manifest import ClassSpec
from vidseg.runtime.sinks import Sink
from vidseg.runtime.web.access import Doorkeeper
from vidseg.runtime.web.address import web_address
from vidseg.runtime.web.application import Application
from vidseg.runtime.web.board import Board
from vidseg.runtime.web.connections import Connections
from vidseg.runtime.web.server import PageServer, listening_socket

if TYPE_CHECKING:
    from vidseg.runtime.web.controlled import Controlled


class WebSink(Sink):
    """Serves a page with the newest result of every source, from the construction on until `close()`.

    The server's thread does all the work: `write` only puts the result in its place, whoever watches.

    Args:
        uri: `web://127.0.0.1:8080`; port 0 for any that is free; for other machines `web://0.0.0.0:8080#token=SECRET`;
            see `web_address`.
        classes: of the model.
        clock: of the pipeline.
        connections: the server's limits.

    Raises:
        UsageError: no such address, or one that is open to other machines without a token.
        SinkError: the port is taken, or a package is missing.
    """

    def __init__(
        self,
        uri: str,
        classes: Sequence[ClassSpec],
        *,
        clock: Clock | None = None,
        connections: Connections | None = None,
    ) -> None:
        clock = clock or SystemClock()
        self._address = web_address(uri)
        self._board = Board(clock)
        listener = listening_socket(self._address)
        self._port: int = listener.getsockname()[1]
        doorkeeper = Doorkeeper(self._address, f"vidseg_{self._port}")
        try:
            self._application = Application(self._board, classes, clock, doorkeeper)
            self._server = PageServer(listener, self._application, connections or Connections())
        except BaseException:
            listener.close()
            raise

    @property
    def name(self) -> str:
        """`web://host:port`, without the token."""
        return self._address.name

    @property
    def port(self) -> int:
        """The port that is served, also where any was asked for."""
        return self._port

    @property
    def wants_picture(self) -> bool:
        """True while somebody watches, and before `attach`; a snapshot is drawn when it is asked for."""
        return self._board.controlled is None or self._application.is_watched

    @property
    def queue_size(self) -> int:
        """1: the newest."""
        return 1

    def attach(self, controlled: Controlled) -> None:
        """Give the page a pipeline: for statistics, and for its buttons. Before that, what needs it answers 503."""
        self._board.attach(controlled)

    def write(self, segmentation: Segmentation, picture: Image | None) -> None:
        """Show a result.

        Raises:
            SinkError: the server has ended.
        """
        if not self._server.alive:
            raise SinkError(f"{self.name}: the page's server has ended")
        self._board.write(segmentation, picture)

    def notify(self, status: SourceStatus) -> None:
        """Show that a source gives nothing, instead of its last picture; keep nothing of one that was removed."""
        self._board.notify(status)

    def close(self) -> None:
        """End the server. Idempotent; takes two seconds at most."""
        self._server.close()
