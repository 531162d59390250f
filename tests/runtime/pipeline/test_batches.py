"""Engines that take several pictures at once: nothing is mixed up, lost or out of order, and a fault harms no more."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.fake_cuda import FakeCuda
from tests.fake_tensorrt import fake_plan
from tests.fakes import CollectingSink, MemorySource, picture_of
from tests.runtime.engines.tensorrt.compiled_kernels import compiled_functions
from tests.runtime.engines.tensorrt.test_engine import CLASSES, library_of
from vidseg.runtime.engines import Engine, Ticket
from vidseg.runtime.engines.fake import FakeEngine, FakeService
from vidseg.runtime.engines.tensorrt.engine import TensorRtEngine, TensorRtOptions
from vidseg.runtime.engines.tensorrt.tables import look_of
from vidseg.runtime.errors import DeviceError, EngineError
from vidseg.runtime.frame import Segmentation
from vidseg.runtime.overlay import Overlay, OverlayStyle
from vidseg.runtime.pipeline import Pipeline

pytestmark = pytest.mark.timeout(60)

SIZE_WH = (16, 12)


class CountingEngine(FakeEngine):
    """Remembers how many pictures each batch held."""

    def __init__(self, service: FakeService) -> None:
        super().__init__(SIZE_WH, service)
        self.batches: list[int] = []

    def enqueue(self, batch: NDArray[np.uint8]) -> Ticket:  # type: ignore[override]
        self.batches.append(len(batch))
        return super().enqueue(batch)


def right(result: Segmentation) -> bool:
    return bool((result.class_map == picture_of(result.frame.index)[..., 0] >> 5).all())


@pytest.mark.parametrize("live", [False, True])
def test_batches_hold_frames_of_all_sources_and_none_is_mixed_up(live: bool) -> None:
    engine = CountingEngine(FakeService(2.0, max_batch=4))
    sink = CollectingSink("all")
    sources = [MemorySource(60, name=f"source {number}", live=live) for number in range(6)]
    pipeline = Pipeline(sources, lambda: engine, [sink])
    pipeline.run()
    assert all(map(right, sink.results))
    for source in sources:
        indices = [result.frame.index for result in sink.results if result.frame.source == source.name]
        assert indices == sorted(indices)
        assert live or indices == list(range(60))
    assert max(engine.batches) == 4
    assert pipeline.statistics().ledger.balanced


def test_cameras_get_equal_shares_of_batches_that_do_not_hold_all() -> None:
    """Five cameras, two a batch: none gets much less than the others, though they do not start at the same time."""
    sink = CollectingSink("all")
    sources = [MemorySource(10**9, name=f"camera {number}", live=True) for number in range(5)]
    done = threading.Event()

    class Ending(FakeEngine):
        calls = 0

        def enqueue(self, batch: NDArray[np.uint8]) -> Ticket:  # type: ignore[override]
            self.calls += 1
            if self.calls == 100:
                done.set()
                pipeline.drain()
            return super().enqueue(batch)

    pipeline = Pipeline(sources, lambda: Ending(SIZE_WH, FakeService(2.0, max_batch=2)), [sink])
    pipeline.run()
    assert done.is_set()
    shares = Counter(result.frame.source for result in sink.results)
    assert min(shares.values()) >= 0.7 * max(shares.values())


def test_a_batch_that_fails_once_is_tried_again_as_a_whole() -> None:
    engine = CountingEngine(FakeService(1.0, faults={1: EngineError("once")}, max_batch=4))
    sink = CollectingSink("all")
    pipeline = Pipeline([MemorySource(30, name=f"source {number}") for number in range(3)], lambda: engine, [sink])
    pipeline.run()
    assert len(sink.results) == 90
    assert all(map(right, sink.results))


def test_all_frames_of_a_batch_that_is_lost_are_counted() -> None:
    engine = CountingEngine(FakeService(1.0, faults={3: DeviceError("the GPU has failed")}, max_batch=4))
    sources = [MemorySource(50, name=f"source {number}") for number in range(4)]
    pipeline = Pipeline(sources, lambda: engine, [CollectingSink("all")])
    with pytest.raises(DeviceError):
        pipeline.run()
    ledger = pipeline.statistics().ledger
    assert ledger.balanced
    assert ledger.dropped["failed"] >= 1


@pytest.mark.parametrize("max_batch", [1, 3])
def test_tensorrt_in_a_pipeline_fits_infers_and_draws_on_its_device(max_batch: int) -> None:
    style = OverlayStyle(legend=False)
    cuda = FakeCuda(functions=compiled_functions())

    def opened() -> Engine:
        options = TensorRtOptions(look=look_of(CLASSES, style))
        return TensorRtEngine(fake_plan((8, 6), max_batch), library_of(cuda), cuda, options)

    overlay = Overlay(CLASSES, style)
    sink = CollectingSink("all", wants_picture=True)
    sources = [MemorySource(40, name=f"source {number}") for number in range(3)]
    Pipeline(sources, opened, [sink], draw=lambda result, _: overlay.draw(result, (), result.blended)).run()
    assert len(sink.results) == 120
    for result, picture in zip(sink.results, sink.pictures, strict=True):
        assert result.blended is not None
        np.testing.assert_array_equal(picture, overlay.draw(replace(result, blended=None)))
        assert (result.class_map == picture_of(result.frame.index)[0, 0, 0] >> 5).all()
