"""Cameras come, go and wait while a run goes on for months: the page has to follow, and to keep nothing of them."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any, get_args

import cv2
import numpy as np
import pytest

from tests.fakes import ManualClock, picture_of
from tests.runtime.web.site import CLASSES, PretendPipeline, pictures, result_of, site
from tests.waiting import until
from vidseg.runtime.captions import draw_hud
from vidseg.runtime.clock import Clock
from vidseg.runtime.engines.fake import FakeEngine
from vidseg.runtime.frame import Frame, SourceState, SourceStatus
from vidseg.runtime.overlay import OverlayStyle
from vidseg.runtime.pipeline.controls import PictureDrawer, PipelineControls
from vidseg.runtime.pipeline.options import PipelineOptions
from vidseg.runtime.pipeline.pipeline import Pipeline
from vidseg.runtime.sinks.web import WebSink
from vidseg.runtime.web import metrics
from vidseg.runtime.web.board import Board
from vidseg.runtime.web.pictures import STATES

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")

pytestmark = pytest.mark.timeout(60)

SIZE_WH = (640, 360)


class Camera:
    """Gives the same picture at 50 Hz for ever, whenever it is opened."""

    live = True

    def __init__(self, name: str) -> None:
        self.name = name
        self._index = 0

    def open(self, clock: Clock, stop: threading.Event) -> None:
        self._clock, self._stop = clock, stop

    def read(self) -> Frame | None:
        if self._stop.wait(0.02):
            return None
        self._index += 1
        return Frame(self.name, 0, self._index, self._clock.now_ns(), self._index, "wall", picture_of(7, SIZE_WH))

    def close(self) -> None:
        pass


class Run:
    """A pipeline with cameras, and its page."""

    def __init__(self, *names: str) -> None:
        self.sink = WebSink("web://127.0.0.1:0", CLASSES)
        drawer = PictureDrawer(CLASSES, OverlayStyle(), hud=False)
        self.pipeline = Pipeline(
            [Camera(name) for name in names], lambda: FakeEngine((16, 12)), [self.sink],
            options=PipelineOptions(heartbeat_ms=100), draw=drawer.draw,
        )  # fmt: skip
        self.sink.attach(PipelineControls(self.pipeline, drawer, [self.sink]))
        self.host = f"127.0.0.1:{self.sink.port}"

    def get(self, path: str, method: str = "GET") -> bytes:
        request = urllib.request.Request(f"http://{self.host}{path}", None, {"Origin": f"http://{self.host}"})
        request.method = method
        with urllib.request.urlopen(request, timeout=8) as answer:
            return bytes(answer.read())

    def sources(self) -> dict[str, Any]:
        return {source["id"]: source for source in json.loads(self.get("/api/status"))["sources"]}


@contextmanager
def _running(*names: str) -> Iterator[Run]:
    run = Run(*names)
    with run.pipeline:
        run.pipeline.start()
        until(lambda: all(source["state"] == "live" for source in run.sources().values()))
        yield run


def test_there_are_words_for_every_state_in_pictures_metrics_and_on_the_page() -> None:
    states = set(get_args(SourceState))
    assert set(STATES) == states
    assert set(metrics.STATES) == states - {"removed"} | {"live", "quiet", "waiting"}
    script = (files("vidseg.runtime.web") / "page" / "page.js").read_text()
    messages = script.partition("MESSAGES = {")[2].partition("};")[0]
    assert set(re.findall(r"(\w+): \"", messages)) == set(metrics.STATES) - {"live"}


def _says_paused(picture: np.ndarray[Any, Any], since_unix_ms: int) -> bool:
    """True where the picture is the camera's in the dark, with the words on it."""
    found = []
    for shift_s in (-1, 0, 1):  # both clocks are read twice
        expected = picture_of(7, SIZE_WH) // np.uint8(4)
        at = time.localtime(since_unix_ms / 1e3 + shift_s)
        draw_hud(expected, [f"camera paused since {time.strftime('%H:%M:%S', at)}"])
        place = np.s_[: SIZE_WH[1] // 10, : SIZE_WH[0] // 2]
        found.append(float(np.abs(picture[place].astype(int) - expected[place]).mean()))
    return min(found) < 4


def test_a_camera_that_is_paused_says_so_in_whatever_shows_its_picture() -> None:
    with _running("gate") as run:
        run.get("/api/sources/gate/pause", "POST")
        until(lambda: run.sources()["gate"]["since_unix_ms"])
        gate = run.sources()["gate"]
        assert gate["state"] == "paused"
        snapshot = run.get("/api/sources/gate/snapshot.jpg")
        decoded = cv2.imdecode(np.frombuffer(snapshot, np.uint8), 1)
        assert decoded is not None
        assert _says_paused(decoded, gate["since_unix_ms"])
        with urllib.request.urlopen(f"http://{run.host}/streams/gate.mjpg", timeout=8) as stream:
            assert stream.readline().strip() == b"--frame"
            head = [stream.readline() for _ in range(3)]
            jpeg = stream.read(int(head[1].split(b":")[1]))
        decoded = cv2.imdecode(np.frombuffer(jpeg, np.uint8), 1)
        assert decoded is not None
        assert _says_paused(decoded, gate["since_unix_ms"])
        run.get("/api/sources/gate/resume", "POST")
        assert run.sources()["gate"]["state"] != "paused", "the button says at once what it does"
        until(lambda: run.sources()["gate"]["state"] == "live")


def test_a_video_of_a_paused_camera_says_so_too() -> None:
    pytest.importorskip("aiortc", reason="needs aiortc")
    from tests.runtime.web.peer import peer

    async def watch(run: Run, since_unix_ms: int) -> None:
        async with peer(run.sink.port, "gate") as watching:
            await watching.watch()
            while not _says_paused(await watching.picture(), since_unix_ms):
                pass

    with _running("gate") as run:
        run.get("/api/sources/gate/pause", "POST")
        until(lambda: run.sources()["gate"]["since_unix_ms"])
        asyncio.run(asyncio.wait_for(watch(run, run.sources()["gate"]["since_unix_ms"]), 20))


def test_a_camera_that_is_removed_is_gone_from_the_page_with_its_streams() -> None:
    with _running("gate", "yard") as run:
        with urllib.request.urlopen(f"http://{run.host}/streams/yard.mjpg", timeout=8) as stream:
            assert stream.read(100)
            run.pipeline.sources.remove("yard")
            while stream.read(1 << 16):
                pass
        until(lambda: set(run.sources()) == {"gate"})
        run.pipeline.sources.add(Camera("yard"))
        until(lambda: run.sources()["yard"]["state"] == "live")


def test_of_hundreds_of_cameras_that_came_and_went_nothing_is_kept() -> None:
    with site() as served:
        board, application = served.sink._board, served.sink._application
        for number in range(300):
            name = f"camera {number}"
            served.pipeline.names = ("front", name)
            served.write(number, name)
            assert served.request(f"/api/sources/camera-{number}/snapshot.jpg")[0] == 200
            if number % 30 == 0:
                with served.connect(f"/streams/camera-{number}.mjpg") as viewer:
                    assert pictures(viewer, 1)
                assert served.request(f"/api/sources/camera-{number}/class-map.png")[0] == 200
                assert served.json("/api/status")["sources"][1]["shares"]
            served.pipeline.names = ("front",)
            served.sink.notify(SourceStatus(name, "removed", 0))
            assert board.shown(name).segmentation is None
        until(lambda: served.metric("vidseg_page_viewers") == 0)
        served.json("/api/status")
        kept = (board._known, board._watches, application._encoder._jpegs, application._encoder._pngs,
                application.teller._shares)  # fmt: skip
        assert all(len(of_names) <= 1 for of_names in kept), kept


def test_a_result_behind_the_word_that_its_camera_is_removed_is_not_kept_either() -> None:
    board, pipeline = Board(ManualClock()), PretendPipeline(("front", "yard"))
    board.attach(pipeline)
    result = result_of(1, "yard")
    board.write(result, None)
    first = board.view("yard")
    with board.watched("yard", lambda: None) as watch:
        pipeline.names = ("front",)
        board.notify(SourceStatus("yard", "removed", 0))
        assert watch.has_ended
    board.write(result, None)
    assert [view.name for view in board.views()] == ["front"]
    assert board.shown("yard").segmentation is None
    pipeline.names = ("front", "yard")
    again = board.view("yard")
    assert first is not None
    assert again is not None
    assert (again.state, again.id) == ("waiting", first.id)
    assert again.generation != first.generation
