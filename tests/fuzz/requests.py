"""HTTP requests as the page's own browser and its visitors' programs send them, and damage to them."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import quote

from tests.fuzz.documents import hostile_json
from tests.fuzz.mutation import ODD_BYTES, damaged_bytes, damaged_text
from tests.fuzz.offers import hostile_offer, offer
from tests.runtime.web.site import CLASSES

CLASS_NAMES = tuple(spec.name for spec in CLASSES)

SOURCES = ("front", "10-0-0-7-yard", "stubborn")
"""IDs of the sources of `tests.runtime.web.site`, and of one without results that cannot be paused."""

ODD_SOURCES = (
    "0",
    "",
    "FRONT",
    "front-2",
    "rtsp:%2f%2f10.0.0.7%2fyard",
    "front%00",
    "..",
    "%2e%2e%2ffront",
    "10.0.0.7",
)


@dataclass(frozen=True, slots=True)
class Handler:
    """An address of the page.

    Attributes:
        method: of HTTP.
        path: where {id} stands for a source's ID.
        good: the status where it does what was asked.
        others: what else it answers, to a request that is well-formed and let in.
    """

    method: str
    path: str
    good: int = 200
    others: frozenset[int] = frozenset()


HANDLERS = {
    "page": Handler("GET", "/"),
    "login page": Handler("GET", "/login"),
    "asset": Handler("GET", "/assets/page.css"),
    "live": Handler("GET", "/health/live"),
    "ready": Handler("GET", "/health/ready", others=frozenset({503})),
    "metrics": Handler("GET", "/metrics"),
    "status": Handler("GET", "/api/status"),
    "events": Handler("GET", "/api/events"),
    "class map": Handler("GET", "/api/sources/{id}/class-map.png", others=frozenset({404, 503})),
    "snapshot": Handler("GET", "/api/sources/{id}/snapshot.jpg", others=frozenset({404, 503})),
    "stream": Handler("GET", "/streams/{id}.mjpg", others=frozenset({404, 503})),
    "login": Handler("POST", "/login", 303, frozenset({400, 401, 413})),
    "overlay": Handler("POST", "/api/overlay", others=frozenset({400, 413})),
    "pause": Handler("POST", "/api/sources/{id}/pause", others=frozenset({404, 409})),
    "resume": Handler("POST", "/api/sources/{id}/resume", others=frozenset({404})),
    "webrtc": Handler("POST", "/api/sources/{id}/webrtc", others=frozenset({400, 404, 413, 503})),
}

NO_ACCESS = frozenset({303, 401})
BAD_HEAD = frozenset({400, 403, 421, 431})
ALL_STATUSES = frozenset({100, 200, 404, 405, 409, 413, 503}) | NO_ACCESS | BAD_HEAD

ELSEWHERE = (
    "/assets/page.js", "/assets/charts.js", "/assets/video.js", "/assets/icon.svg", "/favicon.ico", "/api/webrtc",
    "/api/sources", "/api/sources/front", "/assets/", "/streams/front", "/robots.txt",
)  # fmt: skip

BROWSER = {
    "Accept": "text/html,application/xhtml+xml,*/*;q=0.8", "Accept-Encoding": "gzip, deflate, br", "DNT": "1",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Chrome/130", "Sec-Fetch-Site": "same-origin",
    "Connection": "keep-alive",
    "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Accept-Language": "de,en;q=0.5", "Cache-Control": "no-cache",
}  # fmt: skip

ODD_HEADERS = (
    "Content-Length: -1", "Content-Length: 9999999999999999999999", "Content-Length: 0\r\nContent-Length: 5",
    "Transfer-Encoding: chunked", "Transfer-Encoding: chunked, gzip", "Transfer-Encoding: x", "Upgrade: websocket",
    "Upgrade: h2c", "Expect: 100-continue", "Expect: x", "Host: evil.example", "Host:", "Host: [::1", "Range: bytes=0-",
    "Origin: null", "Origin: http://evil.example", "Authorization: Basic x", "Authorization: Bearer", "Cookie: =;=;",
    "Cookie: vidseg=\x00", 'Cookie: a="\\', "Accept-Encoding: " + "x," * 900, " folded: x", "X:\tx", ": x",
    "X", "X-A: \xff",
    "Sec-Fetch-Site: cross-site", "Connection: close, upgrade", "If-None-Match: *",
    "X-Forwarded-For: ::1", "TE: trailers",
)  # fmt: skip

METHODS = (
    "GET",
    "POST",
    "HEAD",
    "PUT",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "PRI",
    "get",
    "G\x00T",
    "\x16\x03\x01",
)


@dataclass(frozen=True, slots=True)
class Visitor:
    """What somebody knows who may see the page.

    Attributes:
        host: `name:port` of the page.
        token: its token.
        cookie: `name=value`, as it was got by logging in.
    """

    host: str
    token: str
    cookie: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What is sent.

    Attributes:
        content: all of it.
        allowed: statuses with which the first request may be answered.
        handler: in `HANDLERS`, for whom the first request is; "" where that is not known.
        is_whole: the first request is to be answered, while the connection stays open.
    """

    content: bytes
    allowed: frozenset[int] = ALL_STATUSES
    handler: str = ""
    is_whole: bool = False


def hostile_request(rng: random.Random, visitor: Visitor) -> Asked:
    """A request, or several, with damage to its parts or its bytes."""
    first = _request(rng, visitor)
    more = b"".join(_request(rng, visitor).content for _ in range(rng.choice((0, 0, 0, 0, 1, 4))))
    others = (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x00" * 9000)
    if rng.random() < 0.25:
        return Asked(damaged_bytes(rng, first.content + more, others))
    return replace(first, content=first.content + more)


def _request(rng: random.Random, visitor: Visitor) -> Asked:
    name = rng.choice(list(HANDLERS))
    handler = HANDLERS[name]
    allowed, path = handler.others | {handler.good}, handler.path.format(id=_source(rng))
    body = _body(rng, name, visitor.token) if handler.method == "POST" else b""
    headers = {"Host": visitor.host, **dict(rng.sample(list(BROWSER.items()), rng.randint(0, 6)))}
    if body or handler.method == "POST":
        headers |= {"Origin": f"http://{visitor.host}", "Content-Length": str(len(body))}
    access, is_let_in = _access(rng, visitor)
    if not is_let_in:
        allowed |= NO_ACCESS
    if rng.random() < 0.15:
        path, allowed, name = _odd_path(rng, path, visitor.token), ALL_STATUSES, ""
    method, version, lines = _head(rng, handler.method, {**headers, **access})
    is_usual = (method, version) == (handler.method, "HTTP/1.1") and set(lines) <= set(_lines({**headers, **access}))
    head = "\r\n".join([f"{method} {path} {version}", *lines, "", ""]).encode("utf-8", "surrogatepass")
    if not is_usual:
        return Asked(head + body)
    return Asked(head + body, allowed, name, is_whole=True)


def _source(rng: random.Random) -> str:
    if rng.random() < 0.8:
        return rng.choice(SOURCES)
    return quote(rng.choice((rng.choice(ODD_SOURCES), damaged_text(rng, rng.choice(SOURCES)))), "%", errors="replace")


def _head(rng: random.Random, method: str, headers: Mapping[str, str]) -> tuple[str, str, list[str]]:
    """Method, version and header lines; most are what was wanted."""
    version = "HTTP/1.1"
    if rng.random() < 0.05:
        method = rng.choice(METHODS)
    if rng.random() < 0.05:
        version = rng.choice(("HTTP/1.0", "HTTP/9.9", "X"))
    if rng.random() < 0.15:
        headers = _damaged_headers(rng, headers)
    lines = _lines(headers)
    if rng.random() < 0.1:
        lines.insert(rng.randint(1, len(lines)), rng.choice(ODD_HEADERS))
    return method, version, lines


def _lines(headers: Mapping[str, str]) -> list[str]:
    return [f"{name}: {value}" for name, value in headers.items()]


def _access(rng: random.Random, visitor: Visitor) -> tuple[Mapping[str, str], bool]:
    """Headers, and whether they let one in."""
    if rng.random() < 0.8:
        bearer = {"Authorization": f"Bearer {visitor.token}"}
        cookies = (visitor.cookie, f"a=1; {visitor.cookie}", f"{visitor.cookie}; theme=dark")
        return (bearer if rng.random() < 0.4 else {"Cookie": rng.choice(cookies)}), True
    others: list[dict[str, str]] = [
        {"Authorization": "Bearer " + _one_line(damaged_text(rng, visitor.token))},
        {"Cookie": _one_line(damaged_text(rng, visitor.cookie))},
        {"Cookie": f"vidseg_80={visitor.token}"},
        {},
    ]
    return rng.choice(others), False


def _one_line(text: str) -> str:
    return "".join(character for character in text if " " <= character <= "~")[:2000].strip()


def _damaged_headers(rng: random.Random, headers: Mapping[str, str]) -> Mapping[str, str]:
    if rng.random() < 0.7:
        return headers
    name = rng.choice(list(headers))
    return {**headers, name: damaged_text(rng, headers[name])}


def _odd_path(rng: random.Random, path: str, token: str) -> str:
    return rng.choice((
        damaged_text(rng, path), rng.choice(ELSEWHERE),
        f"{path}?token={token}", f"http://evil.example{path}", path + "?" + "a=b&" * 300,
        "*",
        quote(path, safe=""), f"/..{path}", path.replace("/", "//"), path + "/" * 40, path + "%00",
        f"/assets/../../{path}",
        f"{path}#{token}", "/assets/%2e%2e/page.css", "/streams/%ff.mjpg", path + ";x=1", f"/{'a' * 7000}",
    ))  # fmt: skip


def _body(rng: random.Random, name: str, token: str) -> bytes:
    if name == "login":
        good = (f"token={quote(token)}", f"token={quote(token)}&next=/", f"token=+{token}%20")
        bad = ("token=wrong", f"token={token}&a=1&b=2&c=3&d=4&e=5", "", "&" * 99, "token", f"token=&token={token}")
        form = rng.choice(rng.choice((good, bad))).encode()
        return damaged_bytes(rng, form) if rng.random() < 0.2 else form
    if name not in {"overlay", "webrtc"}:
        return b"" if rng.random() < 0.8 else rng.choice(ODD_BYTES)
    if rng.random() < 0.05:
        return rng.choice((b"x" * 20_000, b"[" * 9000, rng.choice(ODD_BYTES)))
    if name == "webrtc":
        return offer().encode() if rng.random() < 0.25 else hostile_offer(rng)
    document = {"alpha": round(rng.random(), 3), "hidden": rng.sample(CLASS_NAMES, rng.randint(0, 3))}
    if rng.random() < 0.5:
        return json.dumps(document).encode()
    return hostile_json(rng, document, (*CLASS_NAMES, "alpha", "hidden"))
