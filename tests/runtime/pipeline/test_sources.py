"""Cameras that come, go and rest while the others run: none of them may notice, and nothing may be left behind."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest

from tests.fakes import CollectingSink, MemorySource, picture_of
from vidseg.runtime.clock import Clock
from vidseg.runtime.engines.fake import FakeEngine
from vidseg.runtime.errors import UsageError
from vidseg.runtime.frame import Frame, SourceStatus
from vidseg.runtime.pipeline import Pipeline
from vidseg.runtime.pipeline.options import PipelineOptions
from vidseg.runtime.sinks.callback import CallbackSink

pytestmark = pytest.mark.timeout(60)


class Camera:
    """Gives a frame a millisecond for ever."""

    live = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.opened = self.closed = 0
        self._index = 0

    def open(self, clock: Clock, stop: threading.Event) -> None:
        self._clock, self._stop = clock, stop
        self.opened += 1
        self._index = 0

    def read(self) -> Frame | None:
        if not self._clock.sleep_until(self._clock.now_ns() + 1_000_000, self._stop):
            return None
        self._index += 1
        now_ns = self._clock.now_ns()
        return Frame(self.name, self.opened - 1, self._index - 1, now_ns, now_ns, "driver", picture_of(self._index))

    def close(self) -> None:
        self.closed += 1


class Eyes:
    """Sees results, and waits for some."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.seen: dict[str, list[tuple[int, int]]] = {}
        self.states: list[tuple[str, str]] = []

    def result(self, segmentation: object) -> None:
        frame = segmentation.frame  # type: ignore[attr-defined]
        with self._changed:
            self.seen.setdefault(frame.source, []).append((frame.epoch, frame.index))
            self._changed.notify_all()

    def status(self, status: SourceStatus) -> None:
        with self._changed:
            self.states.append((status.source, status.state))
            self._changed.notify_all()

    def wait(self, what: Callable[[], object]) -> None:
        with self._changed:
            assert self._changed.wait_for(what, 20), "it never came"

    def more_of(self, *names: str) -> None:
        """Wait until each has given another five results."""
        before = {name: len(self.seen.get(name, [])) for name in names}
        self.wait(lambda: all(len(self.seen.get(name, [])) >= before[name] + 5 for name in names))


def started(*cameras: Camera) -> tuple[Pipeline, Eyes]:
    eyes = Eyes()
    sink = CallbackSink(eyes.result, on_status=eyes.status)
    options = PipelineOptions(heartbeat_ms=30)
    pipeline = Pipeline(cameras, lambda: FakeEngine((16, 12)), [sink], options=options)
    pipeline.start()
    return pipeline, eyes


def ended(pipeline: Pipeline, eyes: Eyes) -> None:
    pipeline.drain()
    pipeline.stop(5)
    ledger = pipeline.statistics().ledger
    assert (ledger.balanced, ledger.in_flight) == (True, 0)
    for seen in eyes.seen.values():
        assert seen == sorted(seen)
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("vidseg ")] == []


def test_a_camera_is_added_and_removed_and_the_other_goes_on() -> None:
    pipeline, eyes = started(Camera("a"))
    late = Camera("b")
    pipeline.sources.add(late)
    eyes.more_of("a", "b")
    assert pipeline.sources.names == ["a", "b"]
    with pytest.raises(UsageError, match="two sources are the same"):
        pipeline.sources.add(Camera("b"))
    pipeline.sources.remove("b")
    eyes.wait(lambda: late.closed)
    eyes.more_of("a")
    eyes.wait(lambda: ("b", "removed") in eyes.states)  # behind its last result: what sinks keep of it can go
    count = len(eyes.seen["b"])
    eyes.more_of("a")
    assert len(eyes.seen["b"]) == count
    pipeline.sources.add(Camera("b"))
    eyes.more_of("a", "b")
    ended(pipeline, eyes)
    assert (late.opened, late.closed) == (1, 1)


class SlowToClose(Camera):
    """Holds its device until it is told to let go."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.let_go = threading.Event()

    def close(self) -> None:
        assert self.let_go.wait(20)
        super().close()


def test_a_name_is_free_when_its_camera_has_let_go_and_not_before() -> None:
    slow = SlowToClose("b")
    pipeline, eyes = started(Camera("a"), slow)
    eyes.more_of("a", "b")
    pipeline.sources.remove("b")
    with pytest.raises(UsageError, match="b was removed and has not let go yet"):
        pipeline.sources.add(Camera("b"))
    slow.let_go.set()
    eyes.wait(lambda: ("b", "removed") in eyes.states)
    pipeline.sources.add(Camera("b"))
    eyes.more_of("a", "b")
    ended(pipeline, eyes)


def test_a_camera_is_added_by_its_name() -> None:
    pipeline, eyes = started(Camera("a"))
    pipeline.sources.add("scene://street?size=64x48&fps=200")
    eyes.more_of(pipeline.sources.names[-1])
    with pytest.raises(UsageError, match="there are no gopher"):
        pipeline.sources.add("gopher://b")
    ended(pipeline, eyes)


def test_a_camera_that_rests_is_closed_and_comes_back_in_its_next_epoch() -> None:
    camera = Camera("a")
    pipeline, eyes = started(camera, Camera("b"))
    eyes.more_of("a", "b")
    pipeline.sources.pause("a")
    eyes.wait(lambda: ("a", "paused") in eyes.states)
    assert (camera.opened, camera.closed) == (1, 1)
    assert pipeline.sources.paused == {"a"}
    assert pipeline.sources.state("a") == "paused"
    count = len(eyes.seen["a"])
    eyes.more_of("b")
    assert len(eyes.seen["a"]) == count
    pipeline.sources.resume("a")
    eyes.more_of("a", "b")
    assert eyes.seen["a"][-1][0] == 1
    pipeline.sources.pause("a")
    ended(pipeline, eyes)


def test_a_recording_that_rests_goes_on_where_it_was() -> None:
    held, go_on = threading.Event(), threading.Event()

    def gate(index: int, _stop: threading.Event) -> None:
        if index == 10:
            held.set()
            assert go_on.wait(20)

    sink = CollectingSink(queue_size=64)
    source = MemorySource(40, gate=gate)
    pipeline = Pipeline([source], lambda: FakeEngine((16, 12)), [sink])
    pipeline.start()
    assert held.wait(20)
    pipeline.sources.pause("memory")
    go_on.set()
    pipeline.sources.resume("memory")
    while pipeline.state != "stopped":
        pipeline.drain() if len(sink.results) == 40 else None
        if pipeline.state == "draining":
            pipeline.stop(5)
    assert [result.frame.index for result in sink.results] == list(range(40))
    assert source.opened == 1


def test_what_cannot_be_added_or_is_not_there_is_an_error() -> None:
    pipeline, eyes = started(Camera("a"))
    with pytest.raises(UsageError, match="has to be there from the start"):
        pipeline.sources.add(MemorySource(3, name="file"))
    for ask in (pipeline.sources.remove, pipeline.sources.pause, pipeline.sources.resume):
        with pytest.raises(UsageError, match="there is no such source: got nobody"):
            ask("nobody")
    ended(pipeline, eyes)
    with pytest.raises(UsageError):
        pipeline.sources.add(Camera("late"))
    assert pipeline.sources.names == ["a"]


@pytest.mark.parametrize("seed", range(5))
def test_any_order_of_coming_going_and_resting_keeps_the_books(seed: int) -> None:
    chance = random.Random(seed)
    pipeline, eyes = started(Camera("steady"))
    names = [f"camera {number}" for number in range(4)]
    for _ in range(60):
        name = chance.choice(names)
        here = name in pipeline.sources.names
        deed = chance.choice(["remove", "pause", "resume"] if here else ["add"])
        try:
            if deed == "add":
                pipeline.sources.add(Camera(name))
            else:
                getattr(pipeline.sources, deed)(name)
        except UsageError:
            assert name not in pipeline.sources.names, "it was leaving"
        if chance.random() < 0.3:
            eyes.more_of("steady")
        assert pipeline.statistics().ledger.balanced
    ended(pipeline, eyes)
