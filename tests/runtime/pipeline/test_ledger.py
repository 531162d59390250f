"""If the books do not balance, a frame was lost without a word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import picture_of
from vidseg.runtime.frame import Frame
from vidseg.runtime.pipeline.ledger import Ledger


def _frame(index: int) -> Frame:
    return Frame("s", 0, index, 0, 0, "pts", picture_of(index))


@given(st.lists(st.sampled_from(["capture", "bad", "drop", "resolve", "offer", "written", "dropped", "failed"])))
def test_every_order_of_steps_balances(steps: list[str]) -> None:
    ledger = Ledger()
    ledger.open_sink("sink")
    waiting: list[Frame] = []
    queued = 0
    for index, step in enumerate(steps):
        if step == "capture":
            waiting.append(_frame(index))
            ledger.capture(waiting[-1])
        elif step == "bad":
            ledger.capture_bad()
        elif step == "drop" and waiting:
            ledger.drop(waiting.pop(), "replaced")
        elif step == "resolve" and waiting:
            ledger.resolve(waiting.pop(0))
        elif step == "offer":
            ledger.offer("sink")
            queued += 1
        elif step in {"written", "dropped", "failed"} and queued:
            ledger.settle("sink", step)  # type: ignore[arg-type]
            queued -= 1
        snapshot = ledger.snapshot()
        assert snapshot.balanced
        assert snapshot.in_flight == len(waiting)
        assert snapshot.sinks["sink"].queued == queued


def test_a_frame_cannot_be_booked_twice() -> None:
    ledger = Ledger()
    ledger.capture(_frame(0))
    with pytest.raises(ValueError, match="captured twice"):
        ledger.capture(_frame(0))
    ledger.resolve(_frame(0))
    with pytest.raises(KeyError):
        ledger.drop(_frame(0), "stopped")
    assert ledger.snapshot().balanced
