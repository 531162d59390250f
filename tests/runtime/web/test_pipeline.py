"""A page that works alone has to work at the end of a run too, and let the run end."""

from __future__ import annotations

import json
import threading
import urllib.request
from pathlib import Path

import pytest

from tests.fakes import MemorySource
from tests.runtime.web.site import CLASSES
from tests.waiting import until
from vidseg.runtime.engines.fake import FakeEngine
from vidseg.runtime.frame import Image, Segmentation
from vidseg.runtime.overlay import Overlay, OverlayStyle
from vidseg.runtime.pipeline.controls import PictureDrawer, PipelineControls
from vidseg.runtime.pipeline.pipeline import Pipeline
from vidseg.runtime.sinks.recording.options import RecordingOptions
from vidseg.runtime.sinks.recording.sink import RecordingSink
from vidseg.runtime.sinks.web import WebSink

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")


@pytest.mark.timeout(30)
def test_a_run_shows_its_pictures_and_ends_with_all_books_balanced() -> None:
    sink = WebSink("web://127.0.0.1:0", CLASSES)
    may_end = threading.Event()

    def gate(index: int, stop: threading.Event) -> None:
        while index == 15 and not may_end.is_set() and not stop.is_set():
            may_end.wait(0.02)

    overlay = Overlay(CLASSES)
    pipeline = Pipeline(
        [MemorySource(16, live=True, gate=gate)], lambda: FakeEngine((16, 12)), [sink],
        draw=lambda segmentation, _: overlay.draw(segmentation),
    )  # fmt: skip
    address = f"http://127.0.0.1:{sink.port}/api/sources/memory/snapshot.jpg"

    def snapshot() -> bytes:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return bytes(answer.read())

    pipeline.start()
    until(lambda: pipeline.statistics().ledger.sinks[sink.name].written)
    assert snapshot().startswith(b"\xff\xd8")
    with urllib.request.urlopen(f"http://127.0.0.1:{sink.port}/health/ready", timeout=5) as answer:
        assert json.load(answer) == {"ready": True, "reasons": []}
    pipeline.stop()
    ledger = pipeline.statistics().ledger
    assert ledger.balanced
    assert ledger.sinks[sink.name].failed == 0
    with pytest.raises(OSError, match="refused"):
        snapshot()


@pytest.mark.timeout(30)
def test_pictures_are_drawn_while_somebody_watches_and_the_page_knows_the_other_sinks(tmp_path: Path) -> None:
    drawn: list[int] = []
    sink = WebSink("web://127.0.0.1:0", CLASSES)
    recording = RecordingSink(tmp_path / "rec", CLASSES, RecordingOptions(picture="frame", min_free_mib=1e9))
    overlay = Overlay(CLASSES)

    def draw(segmentation: Segmentation, _: object) -> Image:
        drawn.append(segmentation.frame.index)
        return overlay.draw(segmentation)

    def pace(_: int, stop: threading.Event) -> None:
        stop.wait(0.02)

    pipeline = Pipeline(
        [MemorySource(10_000, live=True, gate=pace)], lambda: FakeEngine((16, 12)), [sink, recording], draw=draw
    )
    sink.attach(PipelineControls(pipeline, PictureDrawer(CLASSES, OverlayStyle(), hud=False), [sink, recording]))
    address = f"http://127.0.0.1:{sink.port}"
    with pipeline:
        pipeline.start()
        until(lambda: pipeline.statistics().ledger.sinks[sink.name].written > 10)
        assert drawn == []
        with urllib.request.urlopen(f"{address}/streams/memory.mjpg", timeout=5) as stream:
            assert stream.read(100)
            until(lambda: drawn)
        with urllib.request.urlopen(f"{address}/api/status", timeout=5) as answer:
            (output,) = json.load(answer)["outputs"].values()
        assert output["not_recorded"] > 0
        assert output["trouble"]
        until(lambda: not sink.wants_picture)
