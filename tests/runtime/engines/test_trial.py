"""Finding the fastest engine on live frames must never cost a frame, a wrong class or the run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes import CollectingSink, MemorySource, VirtualClock, classes_of, picture_of
from tests.tiny_models import write_tiny_bundle
from vidseg.runtime.bundle import Bundle, open_bundle
from vidseg.runtime.engines import predict
from vidseg.runtime.engines.candidates import Candidate
from vidseg.runtime.engines.fake import FakeEngine, FakeService
from vidseg.runtime.engines.trial import TrialEngine
from vidseg.runtime.errors import EngineError
from vidseg.runtime.pipeline import Pipeline

CLOCK = VirtualClock()


@dataclass(frozen=True)
class Rival:
    """A candidate of a given speed, in time that passes at once."""

    engine: str
    service_ms: float
    faults: dict[int, Exception] = field(default_factory=dict)
    cannot_open: bool = False
    variant: str = "float"
    opened: list[FakeEngine] = field(default_factory=list)

    def open(self, _bundle: Bundle, *, confidence: bool = False) -> FakeEngine:
        assert not confidence
        if self.cannot_open:
            raise EngineError("cannot be loaded")
        self.opened.append(FakeEngine((16, 12), FakeService(self.service_ms, self.faults), CLOCK))
        return self.opened[-1]

    @property
    def is_closed(self) -> bool:
        try:
            self.opened[0].enqueue(picture_of(0)[None])
        except EngineError:
            return True
        return False


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Without samples: the fake engine would not reproduce them."""
    return open_bundle(write_tiny_bundle(tmp_path / "tiny.vidseg", samples=False))


def _trial(bundle: Bundle, *rivals: Rival) -> tuple[TrialEngine, list[Any]]:
    decided: list[Any] = []
    candidates: list[Any] = list(rivals)
    return TrialEngine(bundle, candidates, decided.append, clock=CLOCK), decided


def _infer(engine: TrialEngine, frames: int) -> None:
    for index in range(frames):
        assert np.all(predict(engine, picture_of(index)).class_map == index % 8)


def test_the_fastest_is_found_and_the_others_are_closed(bundle: Bundle) -> None:
    rivals = [Rival("a", 20), Rival("b", 10), Rival("c", 30)]
    engine, decided = _trial(bundle, *rivals)
    with engine:
        _infer(engine, 200)
        assert decided == [rivals[1]]
        started_ns = CLOCK.now_ns()
        _infer(engine, 10)
        assert (CLOCK.now_ns() - started_ns) / 1e6 == pytest.approx(100)
        assert [rival.is_closed for rival in rivals] == [True, False, True]
    assert rivals[1].is_closed


def test_a_small_gain_changes_nothing(bundle: Bundle) -> None:
    rivals = [Rival("a", 20), Rival("b", 19.5)]
    engine, decided = _trial(bundle, *rivals)
    with engine:
        _infer(engine, 200)
    assert decided == [rivals[0]]


def test_one_that_cannot_be_loaded_or_fails_costs_no_frame(bundle: Bundle) -> None:
    rivals = [Rival("a", 20), Rival("b", 1, cannot_open=True), Rival("c", 1, faults={3: EngineError("gone")})]
    engine, decided = _trial(bundle, *rivals)
    with engine:
        _infer(engine, 200)
        assert decided == [rivals[0]]
        assert rivals[2].is_closed


def test_the_one_that_serves_has_to_work(bundle: Bundle) -> None:
    engine, _ = _trial(bundle, Rival("a", 20, faults={2: EngineError("gone")}))
    with engine, pytest.raises(EngineError, match="gone"):
        _infer(engine, 5)


def test_one_that_says_other_classes_than_the_samples_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = open_bundle(write_tiny_bundle(tmp_path / "tiny.vidseg"))
    decided: list[Candidate] = []
    wrong: Any = Rival("wrong", 0.001)
    with TrialEngine(bundle, [Candidate("onnxruntime", "float"), wrong], decided.append) as engine:
        for _ in range(40):
            predict(engine, picture_of(1))
    assert decided == [Candidate("onnxruntime", "float")]
    assert "is left out" in caplog.text


def test_in_a_pipeline_every_result_comes_once_and_in_order(bundle: Bundle) -> None:
    engine, decided = _trial(bundle, Rival("a", 3), Rival("b", 1))
    sink = CollectingSink()
    Pipeline([MemorySource(300)], lambda: engine, [sink]).run()
    assert sink.indices == list(range(300))
    assert classes_of(sink.results) == [index % 8 for index in range(300)]
    assert len(decided) == 1
