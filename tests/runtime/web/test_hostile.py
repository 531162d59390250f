"""What no browser would send: never a traceback, never a hang, and the others are served all the time."""

from __future__ import annotations

import random
import socket
import time
from contextlib import ExitStack

import pytest

from tests.runtime.web.site import Site, site
from tests.waiting import until
from vidseg.runtime.web.connections import MAX_CONNECTIONS, Connections

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")


def _answer_to(served: Site, sent: bytes) -> bytes:
    """All that comes back until the other side closes; what is sent is complete and asks for that."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=8) as connection:
        received = b""
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                received += part
        except ConnectionError:
            pass
        return received


def _request(served: Site, line: str, *headers: str, body: bytes = b"") -> bytes:
    head = "\r\n".join([line, f"Host: {served.host}", "Connection: close", *headers, "", ""])
    return head.encode("latin-1") + body


def test_hostile_requests_are_answered_in_a_line_and_nothing_of_the_disk_comes_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with site() as served:
        own = f"Origin: http://{served.host}"
        cases: dict[bytes, tuple[int, ...]] = {
            _request(served, "GET / HTTP/1.1", f"X: {'a' * 7000}", f"Y: {'b' * 7000}"): (400, 431),
            _request(served, f"GET /{'a' * 9000} HTTP/1.1"): (400, 431),
            _request(served, f"GET /?{'a' * 100_000} HTTP/1.1"): (400, 431),
            _request(served, "GET / HTTP/1.1", *(f"H{n}: x" for n in range(3000))): (400, 431),
            _request(served, "POST /api/overlay HTTP/1.1", own, "Content-Length: 20000", body=b"x" * 20000): (413,),
            _request(served, "POST /login HTTP/1.1", own, "Content-Length: 99999999999", body=b"x" * 99999): (413,),
            _request(served, "POST /login HTTP/1.1", own, "Content-Length: -1"): (400,),
            _request(served, "POST /login HTTP/1.1", own, "Transfer-Encoding: chunked", body=b"zz\r\n"): (400,),
            _request(served, "GET / HTTP/1.1", f"Host: {served.host}"): (400,),
            _request(served, "GET / HTTP/9.9"): (200, 400, 505),
            _request(served, "GET http://evil.example/ HTTP/1.1"): (400, 404),
            _request(served, "BREW / HTTP/1.1", own): (405,),
            _request(served, "DELETE /api/overlay HTTP/1.1", own): (405,),
            _request(served, "TRACE / HTTP/1.1", own): (405,),
            _request(served, "GET / HTTP/1.1", "Upgrade: websocket", "Connection: Upgrade"): (200,),
            b"GET / HTTP/1.0\r\n\r\n": (421,),
            b"GET / HTTP/1.1\r\n\r\n": (400,),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc": (400,),
            b"\x00" * 20000: (400,),
        }
        for path in (
            "/assets/../application.py", "/assets/..%2fapplication.py", "/assets/%2e%2e/%2e%2e/errors.py",
            "/assets//etc/passwd", "/assets/page.js%00.css", "//etc/passwd", "/../../../etc/passwd",
            "/streams/..%2f..%2fetc%2fpasswd.mjpg",
            "/api/sources/%2e%2e%2f/snapshot.jpg", "/assets/index.html", "/assets/%ff%fe", "/%", "/api/sources//pause",
        ):  # fmt: skip
            cases[_request(served, f"GET {path} HTTP/1.1")] = (400, 404)
        for sent, allowed in cases.items():
            received = _answer_to(served, sent)
            status = int(received.split()[1])
            assert status in allowed, (sent[:80], received[:200])
            for leak in (b"Traceback", b'File "', b"root:", b"import ", b"uvicorn"):
                assert leak not in received or status == 200
        assert served.request("/health/live")[0] == 200
    assert caplog.records == []


def test_nonsense_in_one_connection_does_not_reach_the_next_one() -> None:
    rng = random.Random(4)
    with site() as served:
        served.write(0)
        good = _request(served, "GET /health/live HTTP/1.1").replace(b"Connection: close\r\n", b"")
        for _ in range(150):
            parts = bytearray(good * rng.randint(1, 4))
            for _ in range(rng.randint(0, 8)):
                parts[rng.randrange(len(parts))] = rng.randrange(256)
            received = _answer_to(served, bytes(parts[: rng.randint(1, len(parts))]))
            assert b"Traceback" not in received
            assert received == b"" or received.startswith(b"HTTP/1.1 ")
        assert _answer_to(served, good * 5).count(b'{"live":true}') == 5
        assert served.request("/health/live")[0] == 200


def test_who_does_not_finish_a_request_is_cut_off() -> None:
    with site(connections=Connections(request_timeout_s=0.5)) as served:
        post = f"POST /login HTTP/1.1\r\nHost: {served.host}\r\nOrigin: http://{served.host}\r\n"
        post += "Content-Length: 100\r\n\r\n"
        for start in (b"", b"G", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ", post.encode()):
            with socket.create_connection(("127.0.0.1", served.port), timeout=8) as connection:
                started = time.monotonic()
                connection.sendall(start)
                connection.settimeout(0.2)
                while not _has_ended(connection):
                    assert time.monotonic() < started + 5, start
                    _dribble(connection)
                assert time.monotonic() > started + 0.4


def _has_ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1000) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def _dribble(connection: socket.socket) -> None:
    try:
        connection.sendall(b"a")
    except ConnectionError:
        return


def test_too_many_connections_are_told_so_and_the_first_ones_are_served() -> None:
    with site() as served, ExitStack() as stack:
        served.write(0)
        kept = []
        for _ in range(MAX_CONNECTIONS):
            kept.append(stack.enter_context(served.connect("/health/live")))
            assert kept[-1].recv(100).startswith(b"HTTP/1.1 200")
        with socket.create_connection(("127.0.0.1", served.port), timeout=8) as extra:
            assert extra.recv(100).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        kept[0].close()
        until(lambda: served.request("/health/live")[0] == 200)
