"""A viewer behind a bad link must not cost the others a frame, nor the robot a millisecond."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack

import cv2
import numpy as np
import pytest

from tests.runtime.web.site import CLASSES, pictures, result_of, site
from tests.waiting import until
from vidseg.runtime.frame import SourceStatus
from vidseg.runtime.overlay import OverlayStyle
from vidseg.runtime.web.connections import Connections
from vidseg.runtime.web.pictures import MAX_VIEWERS

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")

LARGE = (1280, 720)


def test_a_picture_is_encoded_once_for_all_and_not_at_all_where_nobody_looks() -> None:
    with site() as served, ExitStack() as stack:
        for index in range(5):
            served.write(index)
        assert served.metric("vidseg_page_pictures_encoded_total") == 0
        viewers = [stack.enter_context(served.connect("/streams/front.mjpg")) for _ in range(5)]
        until(lambda: served.metric("vidseg_page_viewers") == 5)
        first = [pictures(viewer, 1) for viewer in viewers]
        assert all(picture == first[0] for picture in first)
        for index in range(10, 13):
            served.write(index)
            found = [pictures(viewer, 1)[0] for viewer in viewers]
            assert len(set(found)) == 1
            assert found[0].startswith(b"\xff\xd8")
        assert served.metric("vidseg_page_pictures_encoded_total") == 4


def test_a_viewer_that_asks_for_more_and_leaves_does_not_keep_its_place() -> None:
    """While a source gives no picture, nothing is sent to it that would fail."""
    with site(connections=Connections(request_timeout_s=0.5)) as served:
        served.write(0)
        with served.connect("/streams/front.mjpg") as viewer:
            assert pictures(viewer, 1)
            viewer.sendall(f"GET / HTTP/1.1\r\nHost: {served.host}\r\n\r\n".encode())
        until(lambda: served.metric("vidseg_page_viewers") == 0)


def test_what_is_no_http_in_the_middle_of_an_answer_ends_the_connection_without_a_word_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Else anybody could fill the log."""
    with site() as served:
        served.write(0)
        with served.connect("/streams/front.mjpg", "Transfer-Encoding: chunked\r\n") as viewer:
            assert pictures(viewer, 1)
            viewer.sendall(b"no chunk\r\n\r\n")
            until(lambda: served.metric("vidseg_page_viewers") == 0)
    assert caplog.text == ""


def test_a_viewer_that_does_not_read_slows_nobody_and_is_dropped() -> None:
    with site(connections=Connections(stall_timeout_s=0.5)) as served, ExitStack() as stack:
        dead = stack.enter_context(socket.socket())
        dead.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        dead.connect(("127.0.0.1", served.port))
        dead.sendall(f"GET /streams/front.mjpg HTTP/1.1\r\nHost: {served.host}\r\n\r\n".encode())
        alive = stack.enter_context(served.connect("/streams/front.mjpg"))
        until(lambda: served.metric("vidseg_page_viewers") == 2)
        slowest_s, count = 0.0, 0
        while served.metric("vidseg_page_viewers") == 2:
            count += 1
            started = time.monotonic()
            served.write(count, size_wh=LARGE)
            slowest_s = max(slowest_s, time.monotonic() - started)
            assert pictures(alive, 1)[0].endswith(b"\xff\xd9")
            assert count < 2000, "it is never dropped"
        served.write(0, size_wh=LARGE)
        assert pictures(alive, 1), "the other one goes on"
    assert count > 5
    assert slowest_s < 1.0


def test_a_slow_viewer_gets_the_newest_picture_when_it_has_taken_one() -> None:
    with site() as served, served.connect("/streams/front.mjpg") as slow:
        until(lambda: served.metric("vidseg_page_viewers") == 1)
        index, encoded, changed_at = 0, 0.0, time.monotonic()
        while time.monotonic() < changed_at + 0.7:  # until it takes no more
            index += 1
            served.write(index, size_wh=LARGE)
            if served.metric("vidseg_page_pictures_encoded_total") != encoded:
                encoded, changed_at = served.metric("vidseg_page_pictures_encoded_total"), time.monotonic()
        served.write(99, size_wh=(64, 48))
        newest = served.request("/api/sources/front/snapshot.jpg")[2]
        taken = [pictures(slow, 1)[0] for _ in range(int(encoded))]
        assert newest not in taken
        assert pictures(slow, 1) == [newest], "of all that came meanwhile"
        assert index > encoded + 2


def test_a_viewer_of_a_lost_camera_is_told_in_the_picture() -> None:
    with site() as served, served.connect("/streams/front.mjpg") as viewer:
        served.write(5)
        light = pictures(viewer, 1)[0]
        served.sink.notify(SourceStatus("front", "lost", time.monotonic_ns()))
        assert pictures(viewer, 1)[0] != light
        served.sink.notify(SourceStatus("10", "refused", time.monotonic_ns()))


@pytest.mark.timeout(30)
def test_a_viewer_of_a_camera_that_was_removed_is_let_go() -> None:
    with site() as served, ExitStack() as stack:
        viewer = stack.enter_context(served.connect("/streams/front.mjpg", "Connection: close\r\n"))
        stream = stack.enter_context(viewer.makefile("rb"))
        served.write(5)
        until(lambda: served.metric("vidseg_page_viewers") == 1)
        served.sink.notify(SourceStatus("front", "removed", time.monotonic_ns()))
        assert stream.read().endswith(b"0\r\n\r\n"), "the answer has its end"
        until(lambda: served.metric("vidseg_page_viewers") == 0)
        assert served.request("/api/sources/front/snapshot.jpg")[0] == 503, "nothing is kept of it"


def test_viewers_are_counted_and_one_too_many_is_refused() -> None:
    with site() as served, ExitStack() as stack:
        for _ in range(MAX_VIEWERS):
            stack.enter_context(served.connect("/streams/front.mjpg"))
        until(lambda: served.metric("vidseg_page_viewers") == MAX_VIEWERS)
        assert served.request("/streams/front.mjpg")[0] == 503
        assert served.request("/streams/nobody.mjpg")[0] == 404
        assert served.request("/streams/front.mjpg", "HEAD")[0] == 503
        stack.close()
        until(lambda: served.metric("vidseg_page_viewers") == 0)
        assert served.request("/streams/front.mjpg", "HEAD")[0] == 200
        assert served.metric("vidseg_page_viewers") == 0


def test_pictures_are_drawn_only_while_somebody_watches_and_a_snapshot_when_it_is_asked_for() -> None:
    with site() as served, ExitStack() as stack:
        assert not served.sink.wants_picture
        served.pipeline.style = OverlayStyle(alpha=1.0, outline=False, legend=False)
        result = result_of(1)
        served.sink.write(result, None)  # as the pipeline does where nobody wants pictures
        assert not served.sink.wants_picture
        drawn = cv2.imdecode(np.frombuffer(served.request("/api/sources/front/snapshot.jpg")[2], np.uint8), 1)
        assert drawn is not None
        for row, color_rgb in ((4, CLASSES[2].color_rgb), (40, CLASSES[0].color_rgb)):
            assert np.abs(drawn[row, 60][::-1].astype(int) - color_rgb).max() < 12, "in the style of now"
        viewer = stack.enter_context(served.connect("/streams/front.mjpg"))
        assert pictures(viewer, 1) == [served.request("/api/sources/front/snapshot.jpg")[2]], "at once"
        assert served.sink.wants_picture
        served.write(2)
        assert pictures(viewer, 1)
        stack.close()
        until(lambda: not served.sink.wants_picture)
    with site(attached=False) as early:
        assert early.sink.wants_picture, "an engine that draws is told so at its start"
