"""What a person sees: a page that is right for programs may still be blank, frozen or cut off."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.runtime.web.conftest import CHROMIUM, DESKTOP, PHONE, PIXEL, TIMEOUT_MS, open_page
from tests.runtime.web.site import TOKEN, Cameras, site

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")
pytest.importorskip("playwright", reason="needs playwright")

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

PAINTED = """canvas => {
    const { width, height } = canvas;
    const copy = Object.assign(document.createElement("canvas"), { width, height });
    const context = copy.getContext("2d", { willReadFrequently: true });
    context.drawImage(canvas, 0, 0);
    const data = context.getImageData(0, 0, width, height).data;
    const colors = new Set();
    for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 250) colors.add(data.slice(i, i + 3).join());
    return colors.size;
}"""


def _until(page: Page, script: str, argument: Any = None) -> None:
    page.wait_for_function(script, arg=argument, timeout=TIMEOUT_MS, polling=50)


@pytest.mark.timeout(90)
def test_pictures_move_charts_draw_buttons_work_and_a_lost_camera_is_no_picture(browser: Browser) -> None:
    with site() as served, Cameras(served) as cameras:
        page, complaints = open_page(browser, DESKTOP)
        page.goto(f"http://{served.host}/")
        image = page.locator(".camera[data-id=front] img")
        image.wait_for(state="visible")
        seen: set[int] = set()
        deadline = time.monotonic() + 10
        while len(seen) < 4:
            assert time.monotonic() < deadline, f"the picture stands still: {seen}"
            seen.add(image.evaluate(PIXEL))
        page.wait_for_function("document.querySelector('#fps').textContent === '10.0 /s'")
        for chart, colors in (("#chart-rate", 2), ("#chart-age", 3), ("#chart-stages", 3), (".shares", 4)):
            canvas = page.locator(chart).first
            until_s = time.monotonic() + 10
            while canvas.evaluate(PAINTED) < colors:
                assert time.monotonic() < until_s, f"{chart} is empty"
        assert "road" in page.locator(".camera[data-id=front] .legend").inner_text()
        waiting = page.locator(".camera").nth(1)
        assert "Waiting for the first picture" in waiting.locator(".veil").inner_text()

        page.get_by_role("button", name="Pause").first.click()
        page.get_by_role("button", name="Resume").wait_for()
        assert served.pipeline.waiting == {"front"}
        page.get_by_role("button", name="Resume").click()
        _until(page, "() => document.querySelector('.dot').classList.contains('live')")
        assert served.pipeline.waiting == set()

        page.get_by_role("button", name="sky").click()
        _until(page, "() => document.querySelector('[data-name=sky]').getAttribute('aria-pressed') === 'false'")
        page.locator("#alpha").fill("20")
        deadline = time.monotonic() + 10
        while (served.pipeline.style.alpha, served.pipeline.style.hidden) != (0.2, ("sky",)):
            assert time.monotonic() < deadline
            page.wait_for_timeout(20)

        cameras.is_lost.set()
        veil = page.locator(".camera[data-id=front] .veil")
        veil.filter(has_text="Camera lost").wait_for()
        assert "since " in veil.inner_text()
        assert image.evaluate("image => getComputedStyle(image).visibility") == "hidden"
        assert complaints == []
        page.context.close()


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("size", "scheme"), [(PHONE, "dark"), (DESKTOP, "light")])
def test_nothing_is_cut_off_and_the_colors_follow_the_system(
    browser: Browser, size: dict[str, int], scheme: str
) -> None:
    with site() as served, Cameras(served):
        served.pipeline.names = ("front", "x" * 120, "<img src=x onerror=alert(1)>")
        page, complaints = open_page(browser, size, scheme)
        page.goto(f"http://{served.host}/")
        page.locator(".camera").nth(2).wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        assert "<img src=x onerror=alert(1)>" in page.locator(".camera").nth(2).inner_text()
        red = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]")
        assert (int(red) < 60) == (scheme == "dark")
        assert complaints == []
        page.context.close()


@pytest.mark.timeout(60)
def test_many_cameras_leave_connections_for_the_rest_and_a_closed_page_leaves_none(browser: Browser) -> None:
    names = tuple(f"camera {number}" for number in range(9))
    with site() as served, Cameras(served, *names):
        served.pipeline.names = names
        page, complaints = open_page(browser, {"width": 1600, "height": 3000})
        page.goto(f"http://{served.host}/")
        _until(page, "() => [...document.querySelectorAll('.camera img')].filter(i => i.naturalWidth).length === 9")
        assert served.metric("vidseg_page_viewers") == 4
        page.get_by_role("button", name="Pause").nth(8).click()
        page.get_by_role("button", name="Resume").wait_for()
        assert complaints == []
        page.context.close()
        deadline = time.monotonic() + 5
        while served.metric("vidseg_page_viewers"):
            assert time.monotonic() < deadline


@pytest.mark.timeout(60)
def test_a_person_logs_in_and_hears_when_the_server_is_gone(browser: Browser) -> None:
    with site(TOKEN) as served, Cameras(served):
        page, complaints = open_page(browser, PHONE)
        page.goto(f"http://{served.host}/")
        assert page.url.endswith("/login")
        page.get_by_label("Token").fill("wrong wrong wrong")
        page.get_by_role("button", name="Log in").click()
        page.get_by_text("This is not the token.").wait_for()
        complaints.clear()  # the browser reports the answer 401
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Log in").click()
        page.locator(".camera img").first.wait_for(state="visible")
        assert complaints == []
        assert page.evaluate("document.cookie") == ""
        served.pipeline.waiting.add("front")  # its camera writes no more
        page.get_by_role("button", name="Resume").wait_for()
        served.sink.close()
        page.get_by_text("No connection to vidseg since").wait_for()
        page.context.close()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("action", ["a button", "another look at the page"])
def test_who_is_not_logged_in_any_more_is_asked_for_the_token_again(browser: Browser, action: str) -> None:
    with site(TOKEN) as served, Cameras(served):
        page, _ = open_page(browser, PHONE)  # the browser reports the answers 401
        page.goto(f"http://{served.host}/")
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Log in").click()
        page.locator(".camera img").first.wait_for(state="visible")
        page.context.clear_cookies()
        if action == "a button":
            page.get_by_role("button", name="Pause").first.click()
        else:
            page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        page.get_by_label("Token").wait_for()
        assert page.url.endswith("/login")
        page.context.close()
