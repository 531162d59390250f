"""A page that works alone has to work at the end of a run too, and let the run end."""

from __future__ import annotations

import json
import threading
import urllib.request

import pytest

from tests.fakes import MemorySource
from tests.runtime.web.site import CLASSES, until
from vidseg.runtime.engines.fake import FakeEngine
from vidseg.runtime.overlay import Overlay
from vidseg.runtime.pipeline.pipeline import Pipeline
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
