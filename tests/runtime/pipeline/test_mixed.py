"""A file beside a camera must lose no frame, and must not make the camera's results old."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.fakes import CollectingSink, MemorySource
from vidseg.runtime.decoding import Outputs
from vidseg.runtime.engines import Ticket
from vidseg.runtime.engines.fake import FakeEngine, FakeService
from vidseg.runtime.frame import Segmentation
from vidseg.runtime.pipeline import Pipeline
from vidseg.runtime.sinks.callback import CallbackSink

pytestmark = pytest.mark.timeout(60)


def test_a_recording_beside_a_camera_loses_nothing_in_a_slow_shared_sink() -> None:
    """The camera runs until the recording is through, as fast as it can."""
    written = threading.Event()
    seen: list[int] = []

    def write(result: Segmentation) -> None:
        if result.frame.source == "file":
            seen.append(result.frame.index)
            if len(seen) == 60:
                written.set()

    def until_written(_index: int, stop: threading.Event) -> None:
        if written.is_set():
            pipeline.drain()
        stop.wait(0.001)

    camera = MemorySource(10**9, name="camera", live=True, gate=until_written)
    pipeline = Pipeline([MemorySource(60, name="file"), camera], lambda: FakeEngine((16, 12)), [CallbackSink(write)])
    pipeline.run()
    assert seen == list(range(60))
    assert pipeline.statistics().ledger.balanced


def test_in_a_loop_over_results_too() -> None:
    camera = MemorySource(200, name="camera", live=True)
    indices: dict[str, list[int]] = {"file": [], "camera": []}
    with Pipeline([MemorySource(40, name="file"), camera], lambda: FakeEngine((16, 12))) as pipeline:
        for result in pipeline:
            indices[result.frame.source].append(result.frame.index)
    assert indices["file"] == list(range(40))
    assert indices["camera"] == sorted(indices["camera"])


def test_a_sink_that_a_recording_waits_for_does_not_hold_up_a_camera() -> None:
    """One sink is stuck with the recording; the camera's results go on reaching the other one."""
    stuck, enough = threading.Event(), threading.Event()
    of_camera: list[int] = []

    def watch(result: Segmentation) -> None:
        if result.frame.source == "camera" and stuck.is_set():
            of_camera.append(result.frame.index)
            if len(of_camera) == 30:
                enough.set()

    def get_stuck() -> None:
        stuck.set()
        assert enough.wait(30)

    slow = CollectingSink("slow", before=get_stuck, queue_size=2)

    def until_enough(_index: int, stop: threading.Event) -> None:
        if enough.is_set():
            pipeline.drain()
        stop.wait(0.001)

    camera = MemorySource(10**9, name="camera", live=True, gate=until_enough)
    pipeline = Pipeline(
        [MemorySource(50, name="file"), camera], lambda: FakeEngine((16, 12)), [slow, CallbackSink(watch)]
    )
    pipeline.run()
    assert len(of_camera) >= 30
    ledger = pipeline.statistics().ledger
    assert ledger.balanced
    assert ledger.in_flight == 0


class _Counting(FakeEngine):
    """Knows how many batches are under way at once."""

    def __init__(self) -> None:
        super().__init__((16, 12), FakeService(1.0))
        self.under_way = self.most = 0

    def enqueue(self, batch: NDArray[np.uint8]) -> Ticket:  # type: ignore[override]
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        ticket, engine = super().enqueue(batch), self

        class Watched:
            def result(self) -> Outputs:
                outputs = ticket.result()
                engine.under_way -= 1
                return outputs

        return Watched()


@pytest.mark.parametrize(("live", "most"), [(True, 1), (False, 2)])
def test_a_second_batch_is_under_way_for_recordings_only(live: bool, most: int) -> None:
    """For a camera it would only wait, and grow old."""
    engine = _Counting()
    Pipeline([MemorySource(100, live=live)], lambda: engine, [CollectingSink()]).run()
    assert engine.most == most


def test_nothing_is_drawn_for_a_sink_that_was_detached() -> None:
    drawn: list[int] = []

    def draw(result: Segmentation, _statistics: object) -> NDArray[np.uint8]:
        drawn.append(result.frame.index)
        picture: NDArray[np.uint8] = result.frame.image.copy()
        return picture

    failed = threading.Event()

    def after_failure(index: int, _stop: threading.Event) -> None:
        if index == 20:
            assert failed.wait(10)

    def fail() -> None:
        failed.set()
        raise ValueError("broken")

    sinks = [CollectingSink("wants", wants_picture=True, before=fail), CollectingSink("other")]
    pipeline = Pipeline([MemorySource(60, gate=after_failure)], lambda: FakeEngine((16, 12)), sinks, draw=draw)
    with pytest.raises(ValueError, match="broken"):
        pipeline.run()
    assert sinks[1].indices == list(range(60))
    assert max(drawn) < 40
