"""Bytes at the page's port: the answer that is documented, in time; no traceback, no secret, nothing in the log."""

from __future__ import annotations

import gc
import json
import logging
import random
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, get_args

import pytest

from tests.fuzz.campaign import Campaign
from tests.fuzz.invariant import check_line, limited
from tests.fuzz.offers import hostile_offer
from tests.fuzz.requests import ALL_STATUSES, CLASS_NAMES, HANDLERS, Asked, Visitor, hostile_request
from tests.runtime.web.site import Site, site
from tests.waiting import until
from vidseg.runtime.frame import SourceState, SourceStatus

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")

TOKEN = "zebra7quokka8ocelot9"
ANSWER_S = 8.0
ENDLESS = re.compile(b"multipart/x-mixed-replace|text/event-stream")
NAMES = ("front", "rtsp://10.0.0.7/yard", "stubborn")


@dataclass(frozen=True, slots=True)
class Answer:
    """The first one of a connection; of an answer without an end, its start."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body) if self.headers.get("content-type") == "application/json" else None


@pytest.fixture
def served() -> Iterator[Site]:
    with site(TOKEN) as made:
        made.pipeline.names = NAMES
        made.sink._application.peers.connect_timeout_s = 0.05  # nobody comes who was answered
        for name in NAMES[:2]:
            made.write(0, name)
        yield made


def test_requests(campaign: Campaign, served: Site, caplog: pytest.LogCaptureFixture) -> None:
    succeeded: set[str] = set()
    visitor = Visitor(served.host, TOKEN, _cookie(served))
    with caplog.at_level(logging.INFO), limited():
        for rng in campaign.cases("http", 800):
            _happen(rng, served)
            asked = hostile_request(rng, visitor)
            received = _exchanged(served, rng, asked)
            _check_hidden(received, visitor)
            answer = _first(received) if asked.is_whole else None
            if answer is not None:
                assert answer.status in asked.allowed, (asked.handler, asked.content[:500], received[:500])
                _check_error(answer)
                if asked.handler and answer.status == HANDLERS[asked.handler].good:
                    succeeded.add(asked.handler)
            _check_overlay(served)
            assert _logged(caplog) == []
        _check_left(served)
        assert _logged(caplog) == []
    if campaign.only is None:
        assert set(HANDLERS) - succeeded <= ({"webrtc"} if find_spec("aiortc") is None else set())


def test_offers(campaign: Campaign, served: Site, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("aiortc", reason="needs aiortc")
    statuses: set[int] = set()
    with caplog.at_level(logging.INFO), limited():
        for rng in campaign.cases("offers", 120):
            headers = {"Authorization": f"Bearer {TOKEN}"}
            status, _, body = served.request("/api/sources/front/webrtc", "POST", headers, hostile_offer(rng))
            if status == 200:
                candidates = [line for line in body.split(b"\r\n") if line.startswith(b"a=candidate:")]
                assert [line.split()[4] for line in candidates] == [b"127.0.0.1"], body
            else:
                assert status in {400, 413, 503}, body
                check_line(json.loads(body)["error"], [TOKEN])
            assert _logged(caplog) == []
            statuses.add(status)
        _check_left(served)
        assert _logged(caplog) == []
    if campaign.only is None:
        assert {200, 400} <= statuses


def _cookie(served: Site) -> str:
    status, headers, _ = served.request(
        "/login", "POST", {"Origin": f"http://{served.host}"}, f"token={TOKEN}".encode()
    )
    assert status == 303
    return headers["set-cookie"].partition(";")[0]


def _happen(rng: random.Random, served: Site) -> None:
    """What a camera does in the meantime."""
    chance, name = rng.random(), rng.choice(NAMES[:2])
    if chance < 0.4:
        served.write(rng.randrange(100), name)
    elif chance < 0.5:
        state = rng.choice(get_args(SourceState))
        served.sink.notify(SourceStatus(name, state, time.monotonic_ns()))


def _exchanged(served: Site, rng: random.Random, asked: Asked) -> bytes:
    """All that comes back; of an answer without an end its start.

    Such an answer goes on behind the end of what is sent where one more request waits behind it, which the server does
    not read.
    """
    received = b""
    with socket.create_connection(("127.0.0.1", served.port), timeout=ANSWER_S) as connection:
        try:
            for part in _parts(rng, asked.content):
                connection.sendall(part)
            while asked.is_whole and _first(received) is None:
                part = connection.recv(1 << 16)
                assert part, ("no whole answer", asked.content[:500], received[:500])
                received += part
            connection.shutdown(socket.SHUT_WR)
            while not ENDLESS.search(received) and (part := connection.recv(1 << 16)):
                received += part
        except TimeoutError:
            raise
        except OSError:  # it has closed the connection before the end of what was sent
            assert not asked.is_whole or received, asked.content[:500]
    return received


def _parts(rng: random.Random, sent: bytes) -> list[bytes]:
    cut = rng.randint(0, len(sent))
    return [sent[:cut], sent[cut:]] if rng.random() < 0.2 else [sent]


def _first(received: bytes) -> Answer | None:
    """None where it has not come as a whole."""
    head, end, rest = received.partition(b"\r\n\r\n")
    if not end:
        return None
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): text for name, _, text in (line.partition(": ") for line in lines[1:])}
    size = int(headers.get("content-length", "1"))
    return Answer(int(lines[0].split()[1]), headers, rest[:size]) if len(rest) >= size else None


def _check_hidden(received: bytes, visitor: Visitor) -> None:
    """Fail where it is no HTTP, or shows a secret or a traceback."""
    assert not received or re.match(rb"HTTP/1\.1 [1-5][0-9][0-9] ", received), received[:300]
    assert TOKEN.encode() not in received.replace(b"%", b""), received[:500]
    given = visitor.cookie.encode()
    assert received.count(given.partition(b"=")[2]) == received.count(b"set-cookie: " + given), received[:500]
    assert b"Traceback" not in received
    assert b'File "' not in received
    for status in re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", received):
        assert int(status) in ALL_STATUSES, received[:500]


def _check_error(answer: Answer) -> None:
    document = answer.document
    if answer.status >= 400 and document is not None and "error" in document:
        check_line(document["error"], [TOKEN])


def _check_overlay(served: Site) -> None:
    style = served.pipeline.style
    assert 0 <= style.alpha <= 1
    assert set(style.hidden) <= set(CLASS_NAMES)


def _logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Ours, and what others warn of."""
    return [
        f"{record.name}: {record.getMessage()}"
        for record in caplog.records
        if record.name.startswith("vidseg") or record.levelno > logging.INFO
    ]


def _check_left(served: Site) -> None:
    """Fail where somebody who has gone is still counted, or the page's state is not whole."""

    def status() -> Any:
        return json.loads(served.request("/api/status", headers={"Authorization": f"Bearer {TOKEN}"})[2])

    def nobody_is_left() -> bool:
        for name in NAMES:  # who did not say goodbye is noticed at the next picture
            served.write(0, name)
        found = status()
        return (found["viewers"], found["webrtc"]["viewers"]) == (0, 0)

    until(nobody_is_left)
    gc.collect()  # errors that nobody has taken are told now
    assert served.request("/health/live")[0] == 200
    assert {source["id"] for source in status()["sources"]} == {"front", "10-0-0-7-yard", "stubborn"}
