"""`Application`: the page's addresses and what each of them answers."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import parse_qs

import msgspec

from vidseg.runtime.clock import Clock
from vidseg.runtime.errors import VidsegError
from vidseg.runtime.manifest import ClassSpec
from vidseg.runtime.overlay import OverlayStyle
from vidseg.runtime.web.access import App, Doorkeeper, Gate, Message, Receive, Send
from vidseg.runtime.web.board import Board, SourceView
from vidseg.runtime.web.controlled import Controlled
from vidseg.runtime.web.metrics import CONTENT_TYPE, metrics_text
from vidseg.runtime.web.outputs import outputs_of
from vidseg.runtime.web.pictures import MEDIA_TYPE, Encoder, Viewers
from vidseg.runtime.web.status import StatusTeller
from vidseg.runtime.web.webrtc import OfferError, Peers, TooManyError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

MAX_BODY_BYTES = 16 * 1024

ASSETS = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "video.js": "text/javascript; charset=utf-8",
    "charts.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


class OverlayRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /api/overlay`: what is to change."""

    alpha: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    hidden: Annotated[list[str], msgspec.Meta(max_length=255)] | None = None


class RefusedError(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Streamed:
    """An answer without an end. Its generator is closed when the other side is gone."""

    def __init__(self, chunks: AsyncGenerator[bytes, None], media_type: str) -> None:
        self._chunks = chunks
        self._media_type = media_type

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Send it; of a HEAD request the head only."""
        from starlette.responses import Response, StreamingResponse

        async with aclosing(self._chunks) as chunks:
            is_head = scope["method"] == "HEAD"
            kind = (
                Response(media_type=self._media_type)
                if is_head
                else StreamingResponse(chunks, media_type=self._media_type)
            )
            await kind(scope, receive, send)


OVERLAY_FORM = 'the overlay is not understood; write it as {"alpha": 0.4, "hidden": ["sky"]}'


class Application:
    """Answers requests, in one thread.

    Args:
        board: of the sources.
        classes: of the model.
        clock: of the board.
        doorkeeper: for logging in.
    """

    def __init__(self, board: Board, classes: Sequence[ClassSpec], clock: Clock, doorkeeper: Doorkeeper) -> None:
        self._board = board
        self._classes = classes
        self._doorkeeper = doorkeeper
        self._encoder = Encoder(classes, clock, self._style)
        self.viewers = Viewers(board, self._encoder)
        self.peers = Peers(board, self._encoder)
        self.teller = StatusTeller(board, self.viewers, self.peers, classes, clock)
        page = files("vidseg.runtime.web") / "page"
        self._files = {name: (page / name).read_bytes() for name in ("index.html", "login.html", *ASSETS)}

    @property
    def is_watched(self) -> bool:
        """True while somebody watches live pictures. From any thread."""
        return bool(self.viewers.count or self.peers.count)

    def asgi(self) -> App:
        """The whole, behind its gate.

        Raises:
            ImportError: starlette is missing.
        """
        from starlette.applications import Starlette
        from starlette.routing import Route

        gets: dict[str, Callable[[Request], Awaitable[Response | Streamed]]] = {
            "/": self._page,
            "/login": self._login_page,
            "/assets/{name}": self._asset,
            "/streams/{id}.mjpg": self._stream,
            "/health/live": self._live,
            "/health/ready": self._ready,
            "/metrics": self._metrics,
            "/api/status": self._status,
            "/api/events": self._events,
            "/api/sources/{id}/class-map.png": self._class_map,
            "/api/sources/{id}/snapshot.jpg": self._snapshot,
        }
        posts: dict[str, Callable[[Request], Awaitable[Response | Streamed]]] = {
            "/login": self._login,
            "/api/overlay": self._set_overlay,
            "/api/sources/{id}/pause": self._pause,
            "/api/sources/{id}/resume": self._resume,
            "/api/sources/{id}/webrtc": self._watch,
        }
        routes = [Route(path, endpoint, methods=["GET"]) for path, endpoint in gets.items()]
        routes += [Route(path, endpoint, methods=["POST"]) for path, endpoint in posts.items()]
        app = Starlette(routes=routes, exception_handlers={RefusedError: _refused, VidsegError: _failed})
        app.router.redirect_slashes = False
        return Gate(app, self._doorkeeper)

    async def _page(self, _: Request) -> Response:
        return _response(self._files["index.html"], "text/html; charset=utf-8")

    async def _login_page(self, _: Request) -> Response:
        return _response(self._files["login.html"], "text/html; charset=utf-8")

    async def _asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in ASSETS:
            raise RefusedError(404, "there is no such file")
        return _response(self._files[name], ASSETS[name])

    async def _live(self, _: Request) -> Response:
        return _json({"live": True})

    async def _ready(self, _: Request) -> Response:
        reasons = self.teller.not_ready()
        return _json({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    async def _metrics(self, _: Request) -> Response:
        controlled = self._controlled()
        text = metrics_text(
            controlled.statistics(), self._board.views(), outputs_of(controlled), viewers=self.viewers, peers=self.peers
        )
        return _response(text, CONTENT_TYPE)

    async def _status(self, _: Request) -> Response:
        self._controlled()
        return _json({**self.teller.document(), "classes": self.teller.classes()})

    async def _events(self, _: Request) -> Streamed:
        return Streamed(self.teller.events(), "text/event-stream")

    async def _stream(self, request: Request) -> Streamed:
        view = self._view(request)
        if self.viewers.full:
            raise RefusedError(503, "too many viewers")
        return Streamed(self.viewers.stream(view.name), MEDIA_TYPE)

    async def _snapshot(self, request: Request) -> Response:
        view = self._view(request)
        if view.shown.segmentation is None:
            raise RefusedError(503, "there is no picture yet")
        return _response(self._encoder.jpeg(view.name, view.shown), "image/jpeg")

    async def _class_map(self, request: Request) -> Response:
        view = self._view(request)
        png = self._encoder.class_map_png(view.name, view.shown)
        if png is None:
            raise RefusedError(503, "there is no result yet")
        return _response(png, "image/png")

    async def _pause(self, request: Request) -> Response:
        view = self._view(request)
        self._controlled().pause(view.name)
        return _json({"id": view.id, "paused": True})

    async def _resume(self, request: Request) -> Response:
        view = self._view(request)
        self._controlled().resume(view.name)
        return _json({"id": view.id, "paused": False})

    async def _watch(self, request: Request) -> Response:
        view = self._view(request)
        offer = (await _body(request)).decode("utf-8", "replace")
        try:
            answer = await self.peers.answer(offer, view.name, request.scope["server"][0])
        except TooManyError as error:
            raise RefusedError(503, "no more can watch by WebRTC") from error
        except OfferError as error:
            raise RefusedError(400, str(error)) from error
        return _response(answer.encode(), "application/sdp")

    async def _set_overlay(self, request: Request) -> Response:
        controlled = self._controlled()
        try:
            wanted = msgspec.json.decode(await _body(request), type=OverlayRequest)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RefusedError(400, OVERLAY_FORM) from error
        style = controlled.overlay()
        if wanted.alpha is not None:
            style = replace(style, alpha=wanted.alpha)
        if wanted.hidden is not None:
            unknown = set(wanted.hidden) - {spec.name for spec in self._classes}
            if unknown:
                raise RefusedError(400, "there is no such class")
            style = replace(style, hidden=tuple(dict.fromkeys(wanted.hidden)))
        controlled.set_overlay(style)
        return _json({"alpha": style.alpha, "hidden": list(style.hidden)})

    async def _login(self, request: Request) -> Response:
        from starlette.responses import RedirectResponse

        try:
            fields = parse_qs((await _body(request)).decode("latin-1"), max_num_fields=4)
        except ValueError as error:
            raise RefusedError(400, "the form is not understood") from error
        if not self._doorkeeper.is_token(fields.get("token", [""])[0].strip()):
            return _response(self._files["login.html"].replace(b"<p hidden", b"<p"), "text/html; charset=utf-8", 401)
        return RedirectResponse("/", 303, headers={"set-cookie": self._doorkeeper.cookie()})

    def _style(self) -> OverlayStyle:
        controlled = self._board.controlled
        return OverlayStyle() if controlled is None else controlled.overlay()

    def _controlled(self) -> Controlled:
        controlled = self._board.controlled
        if controlled is None:
            raise RefusedError(503, "the pipeline is not there yet")
        return controlled

    def _view(self, request: Request) -> SourceView:
        view = self._board.view(request.path_params["id"])
        if view is None:
            raise RefusedError(404, "there is no such source")
        return view


async def _body(request: Request) -> bytes:
    from starlette.requests import ClientDisconnect

    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise RefusedError(413, "the request is too large")
    except ClientDisconnect as error:
        raise RefusedError(400, "the request breaks off") from error
    return body


def _response(content: bytes, media_type: str, status: int = 200) -> Response:
    from starlette.responses import Response

    return Response(content, status, media_type=media_type)


def _json(document: dict[str, Any], status: int = 200) -> Response:
    return _response(json.dumps(document, separators=(",", ":")).encode(), "application/json", status)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return _json({"error": str(error)}, error.status)


async def _failed(_: Request, error: Exception) -> Response:
    return _json({"error": str(error)}, 409)
