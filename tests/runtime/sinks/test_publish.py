"""Whoever watches the stream has to see it live; whoever runs the pipeline must never wait for the server."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import av
import msgspec
import numpy as np
import pytest

from tests.faults.servers import RecordingServer, free_port, needs_rtsp_server
from tests.media import segmentation_of
from tests.processes import children_running
from tests.waiting import until
from vidseg.runtime.errors import UsageError
from vidseg.runtime.frame import Image, SourceStatus
from vidseg.runtime.sinks.publish import PublishSink, PublishStatistics
from vidseg.runtime.sinks.publish_child import Answer, Request, packed
from vidseg.runtime.sinks.recording.encoder import PictureEncoder
from vidseg.runtime.sources.street.code import StreetCode, read_code, write_code

DEADLINE_S = 20


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


@needs_rtsp_server
def test_the_server_gets_every_picture_in_order(received: Path) -> None:
    with RecordingServer(received) as server, closing(PublishSink(server.uri)) as sink:
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


@needs_rtsp_server
@pytest.mark.timeout(90)
def test_a_server_that_is_killed_and_comes_back_gets_the_stream_again(
    received: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RecordingServer(received) as server, closing(PublishSink(server.uri)) as sink:
        camera = Camera(sink)
        camera.run_until_published(10)
        server.kill()
        camera.run_until(lambda: bool(sink.statistics().trouble))
        camera.run_until(lambda: "refused" in sink.statistics().trouble.lower())
        received.unlink(missing_ok=True)
        with RecordingServer(received, port=server.port):
            started = time.monotonic()
            camera.run_until_published(10)
            assert time.monotonic() - started < 6
            sink.close()
            numbers = numbers_of(pictures_of(received))
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert camera.longest_s < 0.5
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == len(set(warnings)) <= 3


@needs_rtsp_server
def test_a_password_is_used_and_never_shown(received: Path, caplog: pytest.LogCaptureFixture) -> None:
    password = "p@ss/w?rd#1"
    with RecordingServer(received, ("ann", password)) as server:
        with closing(PublishSink(server.uri)) as sink:
            Camera(sink).run_until_published(10)
        refused = PublishSink(f"rtsp://ann:wrong-{password}@{server.place}")
        with closing(refused), caplog.at_level(logging.DEBUG):
            camera = Camera(refused)
            camera.run_until(lambda: "not connected" not in refused.statistics().trouble)
    said = caplog.text + refused.name + refused.statistics().trouble
    assert "nothing is published" in said
    assert password not in said
    assert "ann" not in said.replace("channel", "")


@needs_rtsp_server
def test_another_size_is_announced_anew(received: Path) -> None:
    with RecordingServer(received) as server, closing(PublishSink(server.uri)) as sink:
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


@needs_rtsp_server
@pytest.mark.timeout(90)
def test_a_frozen_server_holds_up_nobody_either(received: Path) -> None:
    with RecordingServer(received) as server, closing(PublishSink(server.uri)) as sink:
        camera = Camera(sink)
        camera.run_until_published(5)
        server.freeze()
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


def test_a_removed_source_makes_room_for_the_next(caplog: pytest.LogCaptureFixture) -> None:
    """A page that watches the stream would be dark for good."""
    picture = coded_picture(0)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        sink = PublishSink(f"rtsp://127.0.0.1:{mute.getsockname()[1]}/live")

        def give(*sources: str) -> int:
            for source in sources:
                sink.write(segmentation_of(picture, 0, source=source), picture)
            return sink.statistics().not_published

        assert give("front", "rear", "side") == 1
        until(lambda: children_running("publish_child"))
        sink.notify(SourceStatus("rear", "removed", 0))
        sink.notify(SourceStatus("front", "lost", 0))
        assert give("front", "rear") == 2
        sink.notify(SourceStatus("front", "removed", 0))
        assert not children_running("publish_child")
        assert sink.statistics() == PublishStatistics(0, 2, "its source was removed")
        assert give("rear", "side", "front") == 3
        sink.close()
    assert [record.getMessage().partition(" shows ")[2] for record in caplog.records] == [
        "front only: rear is not published", "front only: side is not published", "front only: rear is not published",
        "rear only: side is not published", "rear only: front is not published",
    ]  # fmt: skip


@needs_rtsp_server
@pytest.mark.timeout(90)
def test_the_next_source_is_published_when_the_first_is_removed(received: Path) -> None:
    with RecordingServer(received) as server, closing(PublishSink(server.uri)) as sink:
        camera = Camera(sink)
        camera.run_until_published(5)
        sink.notify(SourceStatus("drive.mp4", "removed", 0))
        camera.index = 0  # its time begins anew
        camera.run_until_published(5, (640, 480))
        assert sink.statistics().trouble == ""


@pytest.mark.timeout(60)
def test_signals_to_all_processes_of_a_service_are_for_the_run() -> None:
    """A sender that ended by itself would be told as a server that is away, in the middle of an orderly end."""
    ours, theirs = socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as mute, ours:
        mute.settimeout(DEADLINE_S)
        ours.settimeout(DEADLINE_S)
        command = [sys.executable, "-m", "vidseg.runtime.sinks.publish_child", str(theirs.fileno())]
        with theirs, subprocess.Popen(command, pass_fds=[theirs.fileno()]) as process:
            theirs.close()
            (keyframe,) = PictureEncoder((320, 240)).encode(coded_picture(0), 0, 0, keyframe=True)
            request = Request(f"rtsp://127.0.0.1:{mute.getsockname()[1]}/live", keyframe.codec, DEADLINE_S)
            ours.sendall(msgspec.json.encode(request) + b"\n" + packed(keyframe))
            server, _ = mute.accept()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                process.send_signal(number)
            server.close()  # only now is there a reason to end
            answer = msgspec.json.decode(ours.makefile("rb").readline(), type=Answer)
            assert process.wait(DEADLINE_S) == 0
    assert answer.state == "lost"


@pytest.mark.parametrize("uri", ["http://host/live", "rtsp://", "rtsp:///live", "live"])
def test_an_address_that_is_none_is_refused_at_once(uri: str) -> None:
    with pytest.raises(UsageError):
        PublishSink(uri)
