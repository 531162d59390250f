"""Live video in a real browser; where it does not work, the pictures have to come all the same."""

from __future__ import annotations

import time
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.runtime.web.conftest import CHROMIUM, DESKTOP, PHONE, PIXEL, open_page
from tests.runtime.web.site import Cameras, site
from tests.runtime.web.test_outputs import FULL, record
from tests.waiting import until
from vidseg.runtime.frame import SourceStatus

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")
pytest.importorskip("playwright", reason="needs playwright")

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator

pytestmark = [pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"), pytest.mark.timeout(60)]

WITH_WEBRTC = ""
VIDEOS, STREAMS = "vidseg_page_webrtc_viewers", "vidseg_page_viewers"


def _moves(picture: Locator) -> None:
    seen: set[int] = set()
    deadline = time.monotonic() + 10
    while len(seen - {0}) < 4:
        assert time.monotonic() < deadline, f"the picture stands still: {seen}"
        seen.add(picture.evaluate(PIXEL))


def test_the_video_plays_in_its_size_and_a_page_that_is_left_or_loaded_again_takes_no_second_place(
    browser: Browser,
) -> None:
    pytest.importorskip("aiortc", reason="needs aiortc")
    with site() as served, Cameras(served) as cameras:
        page, complaints = open_page(browser, DESKTOP, script=WITH_WEBRTC)
        page.goto(f"http://{served.host}/")
        card = page.locator(".camera[data-id=front]")
        video = card.locator("video")
        video.wait_for(state="visible")
        _moves(video)
        assert video.evaluate("video => [video.videoWidth, video.videoHeight]") == [640, 360]
        assert card.locator("img").get_attribute("src") is None
        assert (served.metric(VIDEOS), served.metric(STREAMS)) == (1, 0)
        page.reload()
        _moves(video)
        until(lambda: served.metric(VIDEOS) == 1, 5)
        page.get_by_role("button", name="Pause").first.click()
        page.get_by_role("button", name="Resume").wait_for()
        page.reload()  # one picture, and no other behind it
        card.locator(".veil").filter(has_text="Paused").wait_for()
        page.wait_for_function("() => document.querySelector('video').readyState >= 2", polling=50)
        assert video.evaluate(PIXEL) > 0
        page.get_by_role("button", name="Resume").click()
        _moves(video)
        cameras.is_lost.set()
        card.locator(".veil").filter(has_text="Camera lost").wait_for()
        assert video.evaluate("video => getComputedStyle(video).visibility") == "hidden"
        assert complaints == []
        page.goto("about:blank")
        until(lambda: served.metric(VIDEOS) == 0, 5)
        page.context.close()


def test_a_video_that_is_not_wide_has_no_black_bars(browser: Browser) -> None:
    pytest.importorskip("aiortc", reason="needs aiortc")
    with site() as served, Cameras(served, size_wh=(320, 240)):
        page, complaints = open_page(browser, DESKTOP, script=WITH_WEBRTC)
        page.goto(f"http://{served.host}/")
        video = page.locator(".camera[data-id=front] video")
        video.wait_for(state="visible")
        _moves(video)
        box = video.bounding_box()
        assert box is not None
        assert box["width"] / box["height"] == pytest.approx(4 / 3, rel=0.01)
        page.set_viewport_size({"width": 700, "height": 600})  # the window's size is not the video's
        box = video.bounding_box()
        assert box is not None
        assert box["width"] / box["height"] == pytest.approx(4 / 3, rel=0.01)
        assert complaints == []
        page.context.close()


@pytest.mark.parametrize(
    "script",
    [
        "RTCPeerConnection.prototype.setRemoteDescription = () => Promise.reject(new Error('no'))",
        "RTCPeerConnection.prototype.setRemoteDescription = () => new Promise(() => {})",
        "RTCPeerConnection.prototype.addTransceiver = undefined",
    ],
    ids=["refused", "nothing comes", "unknown"],
)
def test_where_video_does_not_play_the_pictures_come_as_before(browser: Browser, script: str) -> None:
    with site() as served, Cameras(served):
        page, complaints = open_page(browser, PHONE, script=script)
        page.goto(f"http://{served.host}/")
        image = page.locator(".camera[data-id=front] img")
        image.wait_for(state="visible")
        _moves(image)
        assert page.locator(".camera[data-id=front] video").is_hidden()
        assert served.metric(STREAMS) == 1
        assert complaints == []
        page.context.close()


def test_a_camera_that_was_removed_and_has_come_back_is_shown_again(browser: Browser) -> None:
    with site() as served:
        page, _ = open_page(browser, DESKTOP)
        with Cameras(served):
            page.goto(f"http://{served.host}/")
            image = page.locator(".camera[data-id=front] img")
            image.wait_for(state="visible")
            _moves(image)
        served.sink.notify(SourceStatus("front", "removed", 0))  # the page hears of neither
        until(lambda: served.metric(STREAMS) == 0)
        with Cameras(served):
            until(lambda: served.metric(STREAMS) == 1)
            _moves(image)
        served.pipeline.names = ()
        page.locator(".camera").first.wait_for(state="detached")
        page.context.close()


def test_what_has_failed_or_hangs_stands_at_the_top_and_ages_that_nobody_knows_are_a_dash(browser: Browser) -> None:
    with site() as served, Cameras(served):
        served.pipeline.age_ms = nan
        served.pipeline.detached, served.pipeline.hanging = ("out.jsonl",), ("infer",)
        page, complaints = open_page(browser, PHONE)
        page.goto(f"http://{served.host}/")
        troubles = page.locator("#troubles")
        troubles.wait_for()
        assert troubles.inner_text().splitlines() == [
            "infer hangs", "out.jsonl has failed and gets nothing any more; the log says why",
        ]  # fmt: skip
        assert page.locator("#age-p50").inner_text() == "–"
        served.pipeline.detached, served.pipeline.hanging = (), ()
        troubles.wait_for(state="hidden")
        assert complaints == []
        page.context.close()


def test_a_recording_that_has_stopped_is_told_at_the_top_of_the_page(browser: Browser, tmp_path: Path) -> None:
    with site() as served, Cameras(served):
        sink = record(served, tmp_path / "rec", FULL)
        page, complaints = open_page(browser, DESKTOP)
        page.goto(f"http://{served.host}/")
        troubles = page.locator("#troubles")
        troubles.wait_for()
        assert troubles.inner_text().startswith(f"{sink.name} is not recording: ")
        assert troubles.inner_text().endswith("; 3 frames are missing")
        assert "3 frames missing" in page.locator("#outputs").inner_text()
        sink.close()
        served.pipeline.outputs = []
        troubles.wait_for(state="hidden")
        assert complaints == []
        page.context.close()
