"""`Gate`: who may ask for what. It stands before the application and is plain ASGI.

What it is for: other web pages in the same browser (DNS rebinding, cross-site requests and frames), other machines in
the same network, and whoever sends what no browser would send.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any, TypeAlias

from vidseg.runtime.web.address import WebAddress, is_ip, is_loopback

log = logging.getLogger(__name__)

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

MAX_HEADER_BYTES = 8 * 1024
COOKIE_AGE_S = 30 * 24 * 3600

OPEN_PATHS = frozenset({"/login", "/health/live", "/health/ready", "/assets/page.css", "/assets/icon.svg"})
"""What needs no token. The health pages name no camera."""

SECURITY_HEADERS = tuple(
    (name.encode(), value.encode())
    for name, value in {
        "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": "camera=(), microphone=(), geolocation=()",
        # Not no-referrer: with it, browsers send "Origin: null" with a form.
        "referrer-policy": "same-origin",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
    }.items()
)

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[0-9a-z._-]+)(:[0-9]{1,5})?")
_SAFE = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is no."""

    status: int
    reason: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Doorkeeper:
    """Decides by a request's head alone.

    Attributes:
        address: where the page is served.
        cookie_name: differs by port, because browsers share cookies between the ports of a machine.
    """

    address: WebAddress
    cookie_name: str
    _own_names: frozenset[str] = field(default_factory=lambda: own_names(socket.gethostname()))

    def refusal(self, method: str, path: str, headers: dict[str, str]) -> Refusal | None:
        """Why a request is refused; None where it is not.

        Args:
            method, path: as they were sent, the path decoded.
            headers: by name in lower case; of repeated ones the last.
        """
        has_bearer = self.is_token(headers.get("authorization", "").removeprefix("Bearer ").strip())
        if not has_bearer:  # a page of another origin cannot know it
            refusal = self._of_other_origin(method, headers)
            if refusal is not None:
                return refusal
        if not self.address.token or has_bearer or path in OPEN_PATHS or self._has_cookie(headers):
            return None
        if method in _SAFE and "text/html" in headers.get("accept", ""):
            return Refusal(303, "log in first", ((b"location", b"/login"),))
        return Refusal(401, "a token is needed", ((b"www-authenticate", b'Bearer realm="vidseg"'),))

    def is_token(self, given: str) -> bool:
        """True for the token, and where there is none never; compared in constant time."""
        return bool(self.address.token) and hmac.compare_digest(given.encode(), self.address.token.encode())

    def cookie(self) -> str:
        """The header's value that lets a browser in."""
        return f"{self.cookie_name}={self._pass()}; Path=/; Max-Age={COOKIE_AGE_S}; HttpOnly; SameSite=Strict"

    def _pass(self) -> str:
        """What the cookie holds: from the token, which cannot be had from it, and the same after a restart."""
        return hmac.new(self.address.token.encode(), b"vidseg page", hashlib.sha256).hexdigest()

    def _has_cookie(self, headers: dict[str, str]) -> bool:
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self.cookie_name)
        except CookieError:
            return False
        return cookie is not None and hmac.compare_digest(cookie.value.encode(), self._pass().encode())

    def _of_other_origin(self, method: str, headers: dict[str, str]) -> Refusal | None:
        host = headers.get("host", "").lower()
        if not self._is_own(host):
            reason = "this name is not served here; use the machine's IP address, or name it in web://…#names="
            return Refusal(421, reason)
        origin = headers.get("origin")
        if origin is None and method not in _SAFE:
            return Refusal(403, "an Origin header or a Bearer token is needed")
        if origin is not None and not self._is_own_origin(origin.lower(), host):
            return Refusal(403, "another origin")
        if headers.get("sec-fetch-site") in {"cross-site", "same-site"} and headers.get("sec-fetch-mode") != "navigate":
            return Refusal(403, "another site")
        return None

    def _is_own(self, host: str) -> bool:
        """True for a Host that no name server of a stranger can have led here: an address, this machine's name, or one
        that was given. At a loopback address, only what leads to one, and what was given.
        """
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        name = found[1].strip("[]")
        if name in self.address.names:
            return True
        if self.address.is_loopback:
            return is_loopback(name)
        return name == "localhost" or is_ip(name) or name in self._own_names

    def _is_own_origin(self, origin: str, host: str) -> bool:
        """True where a request comes from the page itself, also where a proxy has put another Host into it."""
        scheme, _, place = origin.partition("://")
        if scheme not in {"http", "https"}:
            return False
        found = _HOST.fullmatch(place)
        return place == host or (found is not None and found[1] in self.address.names)


def own_names(hostname: str) -> frozenset[str]:
    """What this machine is called in its network."""
    name = hostname.lower()
    short = name.partition(".")[0]
    return frozenset({name, short, f"{short}.local"}) - {""}


class Gate:
    """Lets requests through to an application, refuses others, and puts the security headers on every answer.

    Args:
        app: the application.
        doorkeeper: see there.
    """

    def __init__(self, app: App, doorkeeper: Doorkeeper) -> None:
        self._app = app
        self._doorkeeper = doorkeeper

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request. No error of the application gets out of here, except to the log."""
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        size = (
            len(scope["raw_path"])
            + len(scope["query_string"])
            + sum(len(name) + len(text) + 4 for name, text in headers)
        )
        if size > MAX_HEADER_BYTES:
            await refuse(Refusal(431, "the request's head is too large"), _secured(send))
            return
        named = {name.decode("latin-1"): text.decode("latin-1") for name, text in headers}
        refusal = self._doorkeeper.refusal(scope["method"], scope["path"], named)
        if refusal is not None:
            await refuse(refusal, _secured(send))
            return
        try:
            await self._app(scope, receive, _secured(send))
        except Exception as error:  # noqa: BLE001 - one request; the others go on
            if type(error).__module__.startswith("h11"):  # the rest of the request was no HTTP: it has been answered
                return
            log.error("the page failed at a request: %s: %s", type(error).__name__, error)


async def refuse(refusal: Refusal, send: Send) -> None:
    """Answer with a refusal, and close the connection behind it."""
    body = f"{refusal.reason}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *refusal.headers,
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _secured(send: Send) -> Send:
    async def send_secured(message: Message) -> None:
        if message["type"] == "http.response.start":
            given: Iterable[tuple[bytes, bytes]] = message.get("headers", ())
            headers = [*given, *SECURITY_HEADERS]
            if not any(name == b"cache-control" for name, _ in headers):
                headers.append((b"cache-control", b"no-store"))
            message["headers"] = headers
        await send(message)

    return send_secured
