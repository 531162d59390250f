"""A viewer by WebRTC must get what the others get, cost them nothing, and leave nothing behind."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from tests.runtime.web.site import TOKEN, Cameras, Site, pictures, site
from tests.waiting import until
from vidseg.runtime.errors import SinkError
from vidseg.runtime.web.webrtc import MAX_PEERS, MAX_VIDEOS, SILENT_CHECKS, Peers

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")
pytest.importorskip("aiortc", reason="needs aiortc")

from tests.runtime.web.peer import Peer, peer, post_offer

pytestmark = pytest.mark.timeout(60)

VIEWERS, ENCODED = "vidseg_page_webrtc_viewers", "vidseg_page_video_encoded_total"


def _peers(served: Site) -> Peers:
    return served.sink._application.peers


def _offer() -> str:
    """Of somebody who goes no further."""

    async def make() -> str:
        async with peer(0) as watching:
            return await watching.offer()

    return asyncio.run(make())


class Camera:
    """Writes the same picture at 20 Hz, until it is given another one: aiortc shows each when the next one comes."""

    def __init__(self, served: Site) -> None:
        self._served = served
        self._shown: tuple[int, tuple[int, int]] = (0, (64, 48))
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def show(self, index: int, size_wh: tuple[int, int] = (64, 48)) -> None:
        self._shown = (index, size_wh)
        self._served.write(index, size_wh=size_wh)

    def _run(self) -> None:
        while not self._done.wait(0.05):
            index, size_wh = self._shown
            with suppress(SinkError):  # its page has ended
                self._served.write(index, size_wh=size_wh)

    def __enter__(self) -> Camera:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


async def _sees(watching: Peer, index: int, size_wh: tuple[int, int] = (64, 48)) -> int:
    """How many pictures it takes until it is this one."""
    for count in range(1, 60):
        picture = await watching.picture()
        level = float(picture[: size_wh[1] // 3].mean())
        if picture.shape == (size_wh[1], size_wh[0], 3) and abs(level - index * 37 % 200) < 4:
            return count
    raise AssertionError("it does not come")


def test_a_viewer_sees_the_pictures_in_their_size_the_newest_first() -> None:
    async def watch(served: Site, camera: Camera) -> None:
        async with peer(served.port) as watching:
            camera.show(2, (320, 240))  # nobody sees this one
            camera.show(4, (320, 240))
            await watching.watch()
            assert await _sees(watching, 4, (320, 240)) == 1
            until(lambda: served.metric(VIEWERS) == 1)
            camera.show(5, (320, 240))
            await _sees(watching, 5, (320, 240))
            camera.show(3, (640, 360))  # the camera changes its size
            await _sees(watching, 3, (640, 360))

    with site() as served:
        with Camera(served) as camera:
            asyncio.run(watch(served, camera))
        until(lambda: served.metric(VIEWERS) == 0)


def test_a_picture_that_stays_is_sent_again_for_who_has_lost_it() -> None:
    async def watch(served: Site) -> None:
        async with peer(served.port) as watching:
            await watching.watch()
            for _ in range(2):
                assert await _sees(watching, 4, (320, 240)) == 1

    with site() as served:
        served.write(4, size_wh=(320, 240))
        asyncio.run(watch(served))


def test_a_source_is_encoded_once_for_all_and_not_at_all_for_who_is_not_there_yet() -> None:
    async def watch(served: Site) -> None:
        async with AsyncExitStack() as stack:
            for _ in range(3):
                watching = await stack.enter_async_context(peer(served.port))
                await watching.watch()
                await watching.picture()
            before = served.metric(ENCODED)
            for _ in range(10):
                await watching.picture()
            assert 5 <= served.metric(ENCODED) - before <= 15

    with site() as served, Camera(served):
        assert post_offer(served.port, _offer())[0] == 200
        until(lambda: served.json("/api/status")["sources"][0]["fps"] > 5)
        assert served.metric(ENCODED) == 0
        asyncio.run(watch(served))


def test_only_the_address_that_was_asked_is_open_and_no_address_of_an_offer_is_written_to() -> None:
    with site() as served, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as victim:
        victim.bind(("127.0.0.1", 0))
        victim.settimeout(1.0)
        lines = [line for line in _offer().splitlines() if "candidate" not in line]
        lines.append(f"a=candidate:1 1 udp 2130706431 127.0.0.1 {victim.getsockname()[1]} typ host")
        lines.append("a=candidate:2 1 udp 2130706430 printer.local 5353 typ host")
        status, answer = post_offer(served.port, "\r\n".join([*lines, ""]))
        assert status == 200
        (candidate,) = [line for line in answer.splitlines() if line.startswith("a=candidate")]
        assert candidate.split()[4] == "127.0.0.1"
        assert "typ host" in candidate
        with pytest.raises(TimeoutError):
            victim.recv(100)


def test_hostile_offers_are_refused_in_a_line_and_hold_no_place(caplog: pytest.LogCaptureFixture) -> None:
    good = _offer()
    video = good[good.index("m=video") :]
    with site() as served:
        for offer in (
            "", "v=0", "{}", "\x00" * 100, "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n", good + video,
            good.replace("m=video", "m=audio"), good.replace("m=video", "m=application"), good[: len(good) // 2],
            good.replace("H264", "H266"), good.replace("a=ice-pwd", "a=x"), good.replace("a=fingerprint", "a=x"),
            good.replace("a=rtpmap:", "a=rtpmap:x"), good.replace("a=mid:0", "a=mid:" + "x" * 2000),
            good.replace("a=setup:actpass", "a=setup:none"), good.replace("BUNDLE 0", "BUNDLE 7"),
            good.replace("a=rtcp-mux\r\n", ""), "v=0\r\n" * 2000,
        ):  # fmt: skip
            status, answer = post_offer(served.port, offer)
            assert status in {200, 400}, (offer[:60], answer)
            assert status == 200 or answer.startswith('{"error":"'), answer
            assert "Traceback" not in answer
            _peers(served).connect_timeout_s = 0.05
        assert post_offer(served.port, "v=0" + " " * 20000)[0] == 413
        until(lambda: served.metric(VIEWERS) == 0)
        assert served.json("/api/status")["webrtc"] == {"viewers": 0, "room": MAX_PEERS}
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


def test_only_who_may_see_the_page_may_watch() -> None:
    offer = _offer()
    with site(TOKEN) as served:
        assert post_offer(served.port, offer)[0] == 401
        assert post_offer(served.port, offer, Authorization=f"Bearer {TOKEN}")[0] == 200
    with site() as served:
        assert post_offer(served.port, offer, Origin="http://evil.example")[0] == 403
        assert post_offer(served.port, offer, Host="evil.example")[0] == 421
        assert post_offer(served.port, offer, "nobody")[0] == 404


def test_viewers_and_videos_are_limited_and_who_does_not_come_makes_room() -> None:
    offer, names = _offer(), tuple(f"camera-{number}" for number in range(MAX_VIDEOS + 1))
    with site() as served:
        served.pipeline.names = names
        for name in names[:-1]:
            assert post_offer(served.port, offer, name)[0] == 200
        assert post_offer(served.port, offer, names[-1])[0] == 503
        for _ in range(MAX_PEERS - MAX_VIDEOS):
            assert post_offer(served.port, offer, names[0])[0] == 200
        assert served.json("/api/status")["webrtc"] == {"viewers": MAX_PEERS, "room": 0}
        status, answer = post_offer(served.port, offer, names[0])
        assert (status, answer) == (503, '{"error":"no more can watch by WebRTC"}')
    with site() as served:
        _peers(served).connect_timeout_s = 0.2
        assert post_offer(served.port, offer)[0] == 200
        until(lambda: served.metric(VIEWERS) == 0)


def test_a_viewer_that_freezes_slows_nobody_and_is_sent_away() -> None:
    with site() as served, Cameras(served), served.connect("/streams/front.mjpg") as other:
        _peers(served).check_interval_s = 0.7
        command = [sys.executable, "-m", "tests.runtime.web.peer", str(served.port)]
        root = Path(__file__).parents[3]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as frozen:
            try:
                assert frozen.stdout is not None
                assert frozen.stdout.readline() == b"picture\n"
                frozen.send_signal(signal.SIGSTOP)
                slowest_s, started = 0.0, time.monotonic()
                while served.metric(VIEWERS):
                    asked = time.monotonic()
                    assert asked < started + 15
                    assert pictures(other, 1)
                    slowest_s = max(slowest_s, time.monotonic() - asked)
            finally:
                frozen.kill()
        assert time.monotonic() > started + 0.7 * (SILENT_CHECKS - 1)
        assert slowest_s < 1.0


def test_a_page_that_ends_ends_its_viewers_and_leaves_nothing() -> None:
    async def watch(served: Site) -> str:
        watching = Peer(served.port)
        await watching.watch()
        await watching.picture()
        ended = asyncio.Event()
        watching.connection.on("connectionstatechange", ended.set)
        started = time.monotonic()
        await asyncio.to_thread(served.sink.close)
        assert time.monotonic() < started + 2
        await asyncio.wait_for(ended.wait(), 5)
        state = watching.connection.connectionState
        await watching.connection.close()
        return str(state)

    def is_open() -> tuple[int, int]:
        return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))

    offer, before = _offer(), (0, 0)
    for number in range(4):
        served = Site()
        with Camera(served):
            assert asyncio.run(watch(served)) == "closed"
        if number == 0:  # what the libraries keep for good
            before = is_open()
    for _ in range(3):
        with site() as unattended:
            assert post_offer(unattended.port, offer)[0] == 200
    until(lambda: is_open() <= before)


def test_without_aiortc_the_page_says_that_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    offer = _offer()
    monkeypatch.setitem(sys.modules, "aiortc", None)
    with site() as served:
        assert served.json("/api/status")["webrtc"]["room"] == 0
        assert post_offer(served.port, offer)[0] == 503
