"""Who has no business with a camera must not see it: other machines, and other pages in the same browser."""

from __future__ import annotations

import itertools
import logging
import urllib.parse

import pytest

from tests.runtime.web.site import TOKEN, Site, site
from tests.waiting import until
from vidseg.runtime.web.access import own_names

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")

GUARDED = [
    "/", "/assets/page.js", "/streams/front.mjpg", "/metrics", "/api/status", "/api/events",
    "/api/sources/front/class-map.png", "/api/sources/front/snapshot.jpg", "/nothing",
]  # fmt: skip


def test_without_the_token_there_is_nothing_to_see() -> None:
    with site(TOKEN) as served:
        served.write(0)
        wrong: tuple[dict[str, str], ...] = (
            {}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"},
            {"Authorization": "Bearer \xe9"}, {"Cookie": f"vidseg_{served.port}=wrong"},
            {"Cookie": f"vidseg_{served.port}={TOKEN}"}, {"Cookie": "\x01=;=\xe9"},
        )  # fmt: skip
        for path, headers in itertools.product(GUARDED, wrong):
            status, answered, body = served.request(path, headers=headers)
            assert status == 401, headers
            assert answered["www-authenticate"].startswith("Bearer")
            assert body == b"a token is needed\n"


def test_the_token_opens_everything_and_health_needs_none() -> None:
    with site(TOKEN) as served:
        served.write(0)
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        for path in ("/", "/metrics", "/api/status", "/api/sources/front/snapshot.jpg"):
            assert served.request(path, headers=bearer)[0] == 200
        assert served.request("/api/sources/front/pause", "POST", bearer)[0] == 200, "a program has no origin"
        assert served.request("/health/live")[0] == served.request("/health/ready")[0] == 200


def test_a_person_logs_in_once_and_the_token_is_nowhere_in_what_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with site(TOKEN) as served:
        status, headers, _ = served.request("/", headers={"Accept": "text/html,*/*"})
        assert (status, headers["location"]) == (303, "/login")
        answers = [served.request("/login"), _log_in(served, "wrong"), _log_in(served, TOKEN)]
        assert [answer[0] for answer in answers] == [200, 401, 303]
        assert b"<p hidden" in answers[0][2]
        assert b"<p hidden" not in answers[1][2]
        cookie = answers[2][1]["set-cookie"]
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
        session = {"Cookie": f"theme=dark; {cookie.split(';')[0]}"}
        answers += [
            served.request(path, headers=session) for path in ("/", "/api/status", "/metrics", "/assets/page.js")
        ]
        assert all(answer[0] == 200 for answer in answers[3:])
        assert all(TOKEN not in f"{headers}{body!r}" for _, headers, body in answers)
        assert TOKEN not in served.sink.name
        assert TOKEN not in repr(served.sink)
    assert TOKEN not in caplog.text
    with site(TOKEN + "x") as other:
        assert other.request("/", headers=session)[0] == 401


def _log_in(served: Site, token: str) -> tuple[int, dict[str, str], bytes]:
    origin = {"Origin": f"http://{served.host}"}
    return served.request("/login", "POST", origin, urllib.parse.urlencode({"token": token}).encode())


def test_a_name_that_a_stranger_has_led_here_is_refused() -> None:
    with site() as served:
        for host in (
            "evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "a b", "192.168.1.9", "x" * 300,
            "127.0.0.1:x",
        ):  # fmt: skip
            assert served.request("/api/status", headers={"Host": host})[0] in {400, 421}
            assert served.request("/login", "POST", {"Host": host, "Origin": f"http://{host}"})[0] in {400, 421}


def test_this_machines_own_names_are_taken_through_tunnels_too() -> None:
    with site() as served:
        for host in ("localhost", "LOCALHOST:9000", "127.0.0.1", "127.0.0.2:80", "[::1]:8080"):
            assert served.request("/api/status", headers={"Host": host})[0] == 200, host


def test_a_page_for_other_machines_knows_addresses_and_its_own_names() -> None:
    assert own_names("Jetson-3.lab.example") == {"jetson-3", "jetson-3.local", "jetson-3.lab.example"}
    with site(TOKEN) as served:
        assert served.request("/health/live", headers={"Host": "192.168.1.9:8080"})[0] == 200
        assert served.request("/health/live", headers={"Host": "evil.example"})[0] == 421
        bearer = {"Host": "proxy.example", "Authorization": f"Bearer {TOKEN}"}
        assert served.request("/api/status", headers=bearer)[0] == 200


def test_behind_a_proxy_the_page_knows_the_names_that_it_was_given_and_no_others() -> None:
    with site(TOKEN, names="cams.example.org,cams.lan") as served:
        cookie = _log_in(served, TOKEN)[1]["set-cookie"].split(";")[0]

        def pause(host: str, origin: str) -> int:
            headers = {"Host": host, "Origin": origin, "Cookie": cookie, "Sec-Fetch-Site": "same-origin"}
            return served.request("/api/sources/front/pause", "POST", headers)[0]

        for host in ("cams.example.org", "CAMS.example.org:8443", "cams.lan"):
            assert served.request("/login", headers={"Host": host})[0] == 200
            for origin in ("https://cams.example.org", "http://Cams.example.org:8443", f"https://{host}"):
                assert pause(host, origin) == 200, (host, origin)
        assert pause(served.host, "https://cams.example.org") == 200, "the proxy has put in where it found the page"
        for host in ("evil.example", "x.cams.example.org", "example.org", "cams.example.org.evil.example"):
            assert served.request("/login", headers={"Host": host})[0] == 421
            for prefix in ("http", "https"):
                assert pause("cams.example.org", f"{prefix}://{host}") == 403
        for origin in (
            "null",
            "",
            "ftp://cams.example.org",
            "cams.example.org",
            "https://cams.example.org@evil.example",
        ):
            assert pause("cams.example.org", origin) == 403, origin
        assert served.request("/api/status", headers={"Host": "cams.example.org"})[0] == 401, "and needs the token"


def test_other_pages_in_the_browser_cannot_press_buttons_or_embed_pictures() -> None:
    with site() as served:
        served.write(0)
        for origin in (
            "http://evil.example",
            "null",
            f"http://127.0.0.1:{served.port + 1}",
            "",
            f"ftp://{served.host}",
        ):
            for path in ("/api/sources/front/pause", "/api/overlay"):
                assert served.request(path, "POST", {"Origin": origin}, b'{"alpha": 0}')[0] == 403, origin
            assert served.request("/api/status", headers={"Origin": origin})[0] == 403
        assert served.request("/api/sources/front/pause", "POST")[0] == 403
        embedded = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
        assert served.request("/streams/front.mjpg", headers=embedded)[0] == 403
        followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        assert served.request("/", headers=followed)[0] == 200, "a link may lead here"
        assert served.pipeline.waiting == set()
        assert served.pipeline.style.alpha == 0.5
        until(lambda: served.metric("vidseg_page_viewers") == 0)
