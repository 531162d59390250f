"""A robot that drives on an old mask, or on silence, hits something."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from tests.fakes import CollectingSink, HookedEngine, ManualClock, MemorySource, classes_of
from tests.tiny_models import write_tiny_bundle
from vidseg.runtime.engines.fake import FakeEngine
from vidseg.runtime.errors import SourceLostError, UsageError
from vidseg.runtime.frame import UNKNOWN, Frame, Segmentation, SourceStatus
from vidseg.runtime.pipeline import Pipeline, PipelineOptions
from vidseg.runtime.pipeline.books import Books
from vidseg.runtime.pipeline.heartbeats import Heartbeats
from vidseg.runtime.pipeline.ledger import Ledger
from vidseg.runtime.pipeline.opening import OpenOptions, open_pipeline
from vidseg.runtime.pipeline.statistics import Meters
from vidseg.runtime.pipeline.watchdog import Watchdog
from vidseg.runtime.sinks.callback import CallbackSink

pytestmark = pytest.mark.timeout(30)


def _slow(clock: ManualClock, service_ms: float) -> HookedEngine:
    return HookedEngine((16, 12), lambda: clock.advance_ms(service_ms), clock)


def test_a_result_behind_the_deadline_says_that_nothing_is_known() -> None:
    clock, sink = ManualClock(), CollectingSink()
    options = PipelineOptions(deadline_ms=30)
    pipeline = Pipeline([MemorySource(8)], lambda: _slow(clock, 40), [sink], options=options, clock=clock)
    pipeline.run()
    assert sink.indices == list(range(8))
    for index, result in enumerate(sink.results):
        assert result.late
        assert result.age_ms >= 40
        assert (result.class_map == UNKNOWN).all()
        assert result.late_class_map is not None
        assert (result.late_class_map == index).all()
    assert pipeline.statistics().late == 8


def test_the_picture_of_a_late_result_shows_no_classes() -> None:
    clock, sink = ManualClock(), CollectingSink(wants_picture=True, before=lambda: clock.advance_ms(50))
    drawn = np.full((12, 16, 3), 99, np.uint8)
    pipeline = Pipeline(
        [MemorySource(6)],
        lambda: FakeEngine((16, 12), clock=clock),
        [sink],
        options=PipelineOptions(deadline_ms=40),
        draw=lambda _result, _statistics: drawn.copy(),
        clock=clock,
    )
    pipeline.run()
    assert [result.late for result in sink.results][-1]
    for result, picture in zip(sink.results, sink.pictures, strict=True):
        assert picture is not None
        assert np.array_equal(picture, result.frame.image if result.late else drawn)


def test_a_result_in_time_is_as_it_was() -> None:
    clock, sink = ManualClock(), CollectingSink()
    options = PipelineOptions(deadline_ms=30)
    source = MemorySource(1)
    pipeline = Pipeline([source], lambda: _slow(clock, 20), [sink], options=options, clock=clock)
    pipeline.run()
    assert [result.late for result in sink.results] == [False]
    assert classes_of(sink.results) == [0]
    assert sink.results[0].late_class_map is None
    assert pipeline.statistics().late == 0


def test_time_in_a_sinks_queue_counts() -> None:
    clock = ManualClock()
    source = MemorySource(4)

    late: list[bool] = []

    def write(result: Segmentation) -> None:
        late.append(result.late)
        clock.advance_ms(50)

    pipeline = Pipeline(
        [source],
        lambda: FakeEngine((16, 12), clock=clock),
        [CallbackSink(write)],
        options=PipelineOptions(deadline_ms=40),
        clock=clock,
    )
    pipeline.run()
    assert late[0] is False
    assert late[-1] is True


def test_times_of_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="more than 0 ms"):
        PipelineOptions(deadline_ms=0)
    with pytest.raises(UsageError, match="more than 0 ms"):
        PipelineOptions(heartbeat_ms=-1)
    with pytest.raises(UsageError, match="more than 0 ms"):
        PipelineOptions(max_age_ms=0)


def test_a_silent_source_is_told_of_and_a_lost_one_stays_lost() -> None:
    clock = ManualClock()
    beats = Heartbeats(["a", "b", "c"], 100, clock)
    start_ns = clock.now_ns()
    assert beats.due() == []
    clock.advance_ms(60)
    beats.frame("b")
    clock.advance_ms(50)
    assert beats.due() == [SourceStatus("a", "opening", start_ns), SourceStatus("c", "opening", start_ns)]
    assert beats.due() == []
    beats.lost("a")
    beats.ended("a")
    beats.ended("c")
    clock.advance_ms(100)
    assert beats.due() == [
        SourceStatus("a", "lost", start_ns + 110_000_000),
        SourceStatus("b", "silent", start_ns + 60_000_000),
    ]
    assert Heartbeats([], 100, clock).interval_s is None


def test_sinks_hear_of_a_live_source_that_falls_silent() -> None:
    heard = threading.Event()
    statuses: list[SourceStatus] = []
    indices: list[int] = []

    def hear(status: SourceStatus) -> None:
        statuses.append(status)
        heard.set()

    def fall_silent(index: int, _stop: threading.Event) -> None:
        if index == 3:
            assert heard.wait(10)

    sink = CallbackSink(lambda result: indices.append(result.frame.index), on_status=hear)
    source = MemorySource(5, name="camera", live=True, gate=fall_silent)
    Pipeline([source], lambda: FakeEngine((16, 12)), [sink], options=PipelineOptions(heartbeat_ms=20)).run()
    assert heard.is_set()
    assert statuses[0].source == "camera"
    assert statuses[0].state == "silent"
    assert indices == sorted(indices)


def test_sinks_hear_of_a_lost_source_while_others_go_on() -> None:
    heard = threading.Event()

    def hear(status: SourceStatus) -> None:
        if status.state == "lost":
            heard.set()

    def go_on(index: int, _stop: threading.Event) -> None:
        if index == 5:
            assert heard.wait(10)

    lost = MemorySource(9, name="lost", live=True, faults={2: SourceLostError("gone")})
    other = MemorySource(9, name="other", live=True, gate=go_on)
    sink = CallbackSink(lambda _result: None, on_status=hear)
    pipeline = Pipeline(
        [lost, other], lambda: FakeEngine((16, 12)), [sink], options=PipelineOptions(heartbeat_ms=20, retry="never")
    )
    with pytest.raises(SourceLostError):
        pipeline.run()
    assert heard.is_set()


def test_a_status_never_pushes_a_result_out() -> None:
    """A sink that is behind gets its results, and hears nothing that is no longer true when it comes to it."""
    sink = CollectingSink(queue_size=1)
    options = PipelineOptions(heartbeat_ms=1)
    Pipeline([MemorySource(50)], lambda: FakeEngine((16, 12)), [sink], options=options).run()
    assert sink.indices == list(range(50))
    assert sink.statuses == []  # a recorded source is waited for, never silent


def test_confidence_comes_with_the_results_that_ask_for_it(tmp_path: Path) -> None:
    from tests.export.models import ModelSpec, write_model
    from vidseg.export.exporter import ExportRequest, export_model

    (tmp_path / "names.txt").write_text("a\nb\nc\nd")
    out = tmp_path / "x.vidseg"
    export_model(
        ExportRequest(
            model=write_model(tmp_path / "m.onnx", ModelSpec(stride=4)), out=out, fit="letterbox",
            labels=str(tmp_path / "names.txt"), frames="scene://street?pace=max&frames=2",
        )
    )  # fmt: skip
    for confidence in (False, True):
        options = OpenOptions(engine="onnxruntime", confidence=confidence)
        with open_pipeline(out, ["scene://street?pace=max&frames=2&size=90x48"], (), options) as pipeline:
            results = list(pipeline)
        for result in results:
            assert (result.confidence is not None) == confidence
            if result.confidence is not None:
                assert result.confidence.shape == result.class_map.shape
                assert result.confidence.dtype == np.uint8
                assert not result.confidence.flags.writeable


def test_a_late_result_is_not_sure_of_anything() -> None:
    clock = ManualClock()
    frame = Frame("a", 0, 0, clock.now_ns(), 0, "pts", np.zeros((4, 4, 3), np.uint8))
    sure = np.full((4, 4), 250, np.uint8)
    result = Segmentation(frame, np.ones((4, 4), np.uint8), np.eye(2, 3), 0.0, sure)
    clock.advance_ms(11)
    stamped = Books(Ledger(), Meters(clock), clock, Watchdog(None, clock), 10).stamped(result)
    assert stamped.confidence is not None
    assert (stamped.confidence == 0).all()
    assert not Books(Ledger(), Meters(clock), clock, Watchdog(None, clock), 12).stamped(result).late


def test_one_source_and_one_sink_need_no_list(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny.vidseg")
    seen: list[int] = []
    open_pipeline(bundle, "scene://street?pace=max&frames=3", lambda result: seen.append(result.frame.index)).run()
    assert seen == [0, 1, 2]
    with pytest.raises(UsageError, match="is written by another sink"):
        open_pipeline(bundle, "scene://street", [tmp_path / "a.mp4", str(tmp_path / "a.mp4")])
