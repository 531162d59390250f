"""A variant that is slower than float on the other engine makes a device slower than it was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vidseg.calibration.gate import Comparison
from vidseg.export.quantized_model import TargetResult

COMPARISON = Comparison(1, 1.0, 0.0, np.zeros(1))
FAST = TargetResult(
    engine="onnxruntime",
    content=b"graph",
    groups=("conv",),
    comparison=COMPARISON,
    faults=(),
    useless={},
    latency_ms={"float": 100.0, "float-cut": 90.0, "int8": 70.0, "int8-cut": 60.0},
    fastest_float_ms=90.0,
)


def test_what_ships_is_faster_than_the_fastest_float_on_any_engine() -> None:
    assert FAST.ships
    assert FAST.fastest_ms("int8") == 60
    assert not replace(FAST, fastest_float_ms=60.0).ships
    assert not replace(FAST, fastest_float_ms=62.0).ships  # measured times differ by that much by chance
    assert not replace(FAST, fastest_float_ms=40.0).ships  # as in another engine


def test_what_ships_keeps_the_budget_and_has_something_quantized() -> None:
    assert not replace(FAST, faults=("mean IoU falls",)).ships
    assert not replace(FAST, groups=()).ships


def test_a_plan_ships_whatever_the_speed_but_not_beyond_the_budget() -> None:
    slow = replace(FAST, fastest_float_ms=40.0, planned=True)
    assert slow.ships
    assert not replace(slow, faults=("mean IoU falls",)).ships
