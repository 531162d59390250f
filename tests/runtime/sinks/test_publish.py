"""Whoever watches the stream has to see it live; whoever runs the pipeline must never wait for the server."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import av
import numpy as np
import pytest

from tests.faults.servers import MISSING, SYSTEM_PYTHON, free_port
from tests.media import segmentation_of
from tests.processes import children_running
from vidseg.runtime.errors import UsageError
from vidseg.runtime.frame import Image
from vidseg.runtime.sinks.publish import PublishSink
from vidseg.runtime.sources.street.code import StreetCode, read_code, write_code

needs_server = pytest.mark.skipif(bool(MISSING), reason=MISSING)
SERVER = Path(__file__).with_name("recording_server.py")
DEADLINE_S = 20


class RecordingServer:
    """Takes rtsp://127.0.0.1:PORT/live, and appends it to a file."""

    def __init__(self, path: Path, credentials: tuple[str, str] | tuple[()] = (), port: int = 0) -> None:
        self.process = subprocess.Popen(
            [SYSTEM_PYTHON, str(SERVER), str(port), str(path), *credentials],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.uri = f"rtsp://127.0.0.1:{self.port}/live"

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def coded_picture(index: int, size_wh: tuple[int, int] = (320, 240)) -> Image:
    image = np.full((size_wh[1], size_wh[0], 3), 90, np.uint8)
    write_code(image, StreetCode(index, index))
    return image


class Camera:
    """Writes numbered pictures to a sink, one each 20 ms, until something is true; the longest write is kept."""

    def __init__(self, sink: PublishSink) -> None:
        self.sink = sink
        self.index = 0
        self.longest_s = 0.0

    def write(self, size_wh: tuple[int, int] = (320, 240)) -> None:
        picture = coded_picture(self.index, size_wh)
        started = time.monotonic()
        self.sink.write(segmentation_of(picture, self.index, stamp_ms=self.index * 20), picture)
        self.longest_s = max(self.longest_s, time.monotonic() - started)
        self.index += 1

    def run_until(self, is_true: Callable[[], bool], size_wh: tuple[int, int] = (320, 240)) -> None:
        end = time.monotonic() + DEADLINE_S
        pause = threading.Event()
        while not is_true():
            assert time.monotonic() < end, self.sink.statistics()
            self.write(size_wh)
            pause.wait(0.02)  # a camera's pace

    def run_until_published(self, count: int, size_wh: tuple[int, int] = (320, 240)) -> None:
        wanted = self.sink.statistics().published + count
        self.run_until(lambda: self.sink.statistics().published >= wanted, size_wh)


@pytest.fixture
def received(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "received.h264"
    assert children_running("publish_child") == []


def pictures_of(path: Path) -> list[Image]:
    with av.open(str(path), format="h264") as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


def numbers_of(pictures: list[Image]) -> list[int]:
    codes = [read_code(picture) for picture in pictures]
    return [code.index for code in codes if code is not None]


@needs_server
def test_the_server_gets_every_picture_in_order(received: Path) -> None:
    with (
        closing(RecordingServer(received)) as server,
        closing(PublishSink(server.uri)) as sink,
    ):
        camera = Camera(sink)
        camera.run_until_published(50)
        sink.close()
        sink.close()
        pictures = pictures_of(received)
    numbers = numbers_of(pictures)
    assert len(numbers) == len(pictures)
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert len(numbers) >= 45  # the server may cut the end
    statistics = sink.statistics()
    assert statistics.trouble == ""
    assert statistics.published + statistics.not_published == camera.index
    assert np.abs(pictures[-1][0].astype(int) - 90).max() <= 3


@needs_server
@pytest.mark.timeout(90)
def test_a_server_that_is_killed_and_comes_back_gets_the_stream_again(
    received: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(RecordingServer(received)) as server, closing(PublishSink(server.uri)) as sink:
        camera = Camera(sink)
        camera.run_until_published(10)
        server.close()
        camera.run_until(lambda: bool(sink.statistics().trouble))
        camera.run_until(lambda: "refused" in sink.statistics().trouble.lower())
        received.unlink(missing_ok=True)
        with closing(RecordingServer(received, port=server.port)):
            started = time.monotonic()
            camera.run_until_published(10)
            assert time.monotonic() - started < 6
            sink.close()
            numbers = numbers_of(pictures_of(received))
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert camera.longest_s < 0.5
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == len(set(warnings)) <= 3


@needs_server
def test_a_password_is_used_and_never_shown(received: Path, caplog: pytest.LogCaptureFixture) -> None:
    password = "p@ss/w?rd#1"
    with closing(RecordingServer(received, ("ann", password))) as server:
        place = server.uri.removeprefix("rtsp://")
        with closing(PublishSink(f"rtsp://ann:{password}@{place}")) as sink:
            Camera(sink).run_until_published(10)
        refused = PublishSink(f"rtsp://ann:wrong-{password}@{place}")
        with closing(refused), caplog.at_level(logging.DEBUG):
            camera = Camera(refused)
            camera.run_until(lambda: "not connected" not in refused.statistics().trouble)
    said = caplog.text + refused.name + refused.statistics().trouble
    assert "nothing is published" in said
    assert password not in said
    assert "ann" not in said.replace("channel", "")


@needs_server
def test_another_size_is_announced_anew(received: Path) -> None:
    with (
        closing(RecordingServer(received)) as server,
        closing(PublishSink(server.uri)) as sink,
    ):
        camera = Camera(sink)
        camera.run_until_published(10)
        camera.run_until_published(10, (160, 120))
        sink.close()
        sizes = [picture.shape[1] for picture in pictures_of(received)]
    assert sizes == sorted(sizes, reverse=True)
    assert set(sizes) == {320, 160}


def test_a_server_that_does_not_answer_holds_up_nobody(received: Path) -> None:
    """It takes the connection and says nothing; the rest of the process goes on, and so does the sink."""
    ticks: list[float] = []
    over = threading.Event()

    def tick() -> None:
        while not over.wait(0.005):
            ticks.append(time.monotonic())

    thread = threading.Thread(target=tick)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        sink = PublishSink(f"rtsp://127.0.0.1:{mute.getsockname()[1]}/live")
        camera = Camera(sink)
        thread.start()
        end = time.monotonic() + 1.5
        camera.run_until(lambda: time.monotonic() > end)
        over.set()
        thread.join()
        started = time.monotonic()
        sink.close()
        assert time.monotonic() - started < 1
    assert max(np.diff(ticks)) < 0.5
    assert camera.longest_s < 0.5
    assert sink.statistics().published == 0
    assert sink.statistics().not_published == camera.index
    assert not received.exists()


@needs_server
@pytest.mark.timeout(90)
def test_a_frozen_server_holds_up_nobody_either(received: Path) -> None:
    with (
        closing(RecordingServer(received)) as server,
        closing(PublishSink(server.uri)) as sink,
    ):
        camera = Camera(sink)
        camera.run_until_published(5)
        server.process.send_signal(signal.SIGSTOP)
        end = time.monotonic() + 1.5
        camera.run_until(lambda: time.monotonic() > end)
        started = time.monotonic()
        sink.close()
        assert time.monotonic() - started < 2.5
    assert camera.longest_s < 0.5


def test_a_server_that_is_away_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    sink = PublishSink(f"rtsp://127.0.0.1:{free_port()}/live")
    camera = Camera(sink)
    camera.run_until(lambda: "refused" in sink.statistics().trouble)
    end = time.monotonic() + 1.5
    camera.run_until(lambda: time.monotonic() > end)
    sink.close()
    assert len(caplog.records) == 1
    assert "Connection refused. Everything else goes on" in caplog.text


def test_of_several_sources_one_is_published(caplog: pytest.LogCaptureFixture) -> None:
    sink = PublishSink(f"rtsp://127.0.0.1:{free_port()}/live")
    picture = coded_picture(0)
    for source in ("front", "rear", "rear"):
        sink.write(segmentation_of(picture, 0, source=source), picture)
    sink.close()
    assert [record.getMessage().partition(" shows ")[2] for record in caplog.records] == [
        "front only: rear is not published"
    ]


@pytest.mark.parametrize("uri", ["http://host/live", "rtsp://", "rtsp:///live", "live"])
def test_an_address_that_is_none_is_refused_at_once(uri: str) -> None:
    with pytest.raises(UsageError):
        PublishSink(uri)
