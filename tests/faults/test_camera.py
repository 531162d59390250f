"""A USB camera that is pulled out and put back is used again, without a person."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.fakes import CollectingSink, FakeCapture, picture_of
from vidseg.runtime.engines.fake import FakeEngine
from vidseg.runtime.pipeline import Pipeline, PipelineOptions
from vidseg.runtime.sources.camera import CameraSource

pytestmark = pytest.mark.timeout(60)


def test_a_camera_that_is_plugged_in_again_is_used_again(tmp_path: Path) -> None:
    """Its link leads to the device that it is by then; the third time it stays away, and the run is ended."""
    (tmp_path / "video0").touch()
    captures = [FakeCapture([(picture_of(index), None) for index in range(3)]) for _ in range(2)]
    waiting = iter(captures)
    seen_all = threading.Event()

    def open_next(_path: Path) -> FakeCapture:
        capture = next(waiting, None)
        if capture is None:
            seen_all.set()
            raise FileNotFoundError
        return capture

    source = CameraSource(tmp_path / "video0", open_capture=open_next, list_cameras=list)
    sink = CollectingSink(queue_size=8)
    options = PipelineOptions(every_frame=True, max_age_ms=30_000)
    pipeline = Pipeline([source], lambda: FakeEngine((16, 12)), [sink], options=options)
    pipeline.start()
    assert seen_all.wait(20)
    pipeline.drain()
    pipeline.stop(5)
    assert [(result.frame.epoch, result.frame.index) for result in sink.results] == [
        (epoch, index) for epoch in range(2) for index in range(3)
    ]
    assert [capture.closed for capture in captures] == [1, 1]
    assert pipeline.statistics().ledger.balanced
