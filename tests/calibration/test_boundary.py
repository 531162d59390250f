"""The boundary measure has to see what IoU does not, and nothing that is not there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidseg.calibration.boundary import TOLERANCE_SHARE, BoundaryCounter
from vidseg.runtime.frame import ClassMap


def _square(offset: int, size: int = 20) -> ClassMap:
    """A square of class 1 on 0, moved to the right; the tolerance of this picture is 0.75 px of 100."""
    ids = np.zeros((60, 80), np.uint8)
    ids[20 : 20 + size, 20 + offset : 20 + offset + size] = 1
    return ids


def _f(label: ClassMap, prediction: ClassMap, classes: int = 2, ignore: int = 255) -> float:
    counter = BoundaryCounter(classes, ignore)
    counter.add(label, prediction)
    return counter.scores().mean_f


def test_a_perfect_prediction_scores_1_and_a_moved_one_less() -> None:
    assert _f(_square(0), _square(0)) == 1.0
    assert _f(_square(0), _square(1)) < 1.0
    assert _f(_square(0), _square(6)) < _f(_square(0), _square(1))


def test_within_the_tolerance_a_border_is_met() -> None:
    large = [np.kron(_square(offset), np.ones((4, 4), np.uint8)) for offset in (0, 1)]  # off by 4 of 400: 3 are allowed
    assert _f(large[0], large[1]) < 1.0
    moved = np.roll(large[0], 3, axis=1)
    assert TOLERANCE_SHARE * 400 == 3.0
    assert _f(large[0], moved) == 1.0
    assert _f(large[0], np.roll(large[0], 4, axis=1)) < 1.0


def test_by_hand() -> None:
    """Columns: 0 0 0 1 1 1 against 0 1 1 1 1 1; the tolerance is below a pixel."""
    label = np.repeat(np.array([[0, 0, 0, 1, 1, 1]], np.uint8), 4, axis=0)
    prediction = np.repeat(np.array([[0, 1, 1, 1, 1, 1]], np.uint8), 4, axis=0)
    counter = BoundaryCounter(2)
    counter.add(label, prediction)
    scores = counter.scores()
    assert scores.precision.tolist() == [0.0, 0.0]
    assert scores.f.tolist() == [0.0, 0.0]
    counter.add(label, label)
    assert counter.scores().precision.tolist() == [0.5, 0.5]
    assert counter.scores().f.tolist() == [0.5, 0.5]


def test_a_class_without_a_border_has_no_score_and_a_missed_one_has_0() -> None:
    nothing = np.zeros((60, 80), np.uint8)
    assert np.isnan(_f(nothing, nothing))
    counter = BoundaryCounter(3)
    counter.add(_square(0), nothing)
    assert counter.scores().f.tolist()[:2] == [0.0, 0.0]
    assert np.isnan(counter.scores().f[2])


def test_what_is_ignored_has_no_border_and_makes_none() -> None:
    label = _square(0)
    label[:, 40:] = 255
    prediction = _square(0)
    prediction[:, 42:] = 1
    assert _f(label, prediction) == 1.0
    assert np.isnan(_f(np.full((60, 80), 255, np.uint8), _square(0)))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_order_and_direction(seed: int, classes: int) -> None:
    """Pictures may come in any order; with label and prediction exchanged, precision and recall are."""
    rng = np.random.default_rng(seed)
    pairs = [rng.integers(0, classes, (2, 9, 12), dtype=np.uint8).repeat(3, 1).repeat(3, 2) for _ in range(3)]
    forward, backward, exchanged = BoundaryCounter(classes), BoundaryCounter(classes), BoundaryCounter(classes)
    for label, prediction in pairs:
        forward.add(label, prediction)
        exchanged.add(prediction, label)
    for label, prediction in reversed(pairs):
        backward.add(label, prediction)
    assert np.array_equal(forward.scores().f, backward.scores().f, equal_nan=True)
    assert np.array_equal(forward.scores().precision, exchanged.scores().recall, equal_nan=True)
    assert forward.scores().mean_f == pytest.approx(exchanged.scores().mean_f, nan_ok=True)
