"""The gate counts only pixels that the float model is sure of: too many of them and it refuses good INT8."""

from __future__ import annotations

import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vidseg.calibration.margin import SURE_MARGIN, margin_of, sure_pixels
from vidseg.runtime.upsampling import Alignment, Scores

ALIGNMENTS: list[Alignment] = ["half_pixel", "align_corners", "asymmetric"]
seeds = st.integers(0, 2**32 - 1)


def plain_margin(
    scores: Scores, size_wh: tuple[int, int], alignment: Alignment, *, probabilities: bool
) -> NDArray[np.float64]:
    """The rule in its simplest form: upsample all, softmax, sort; (classes, h, w) to (H, W)."""
    values = scores.astype(np.float64)
    for axis, size in ((1, size_wh[1]), (2, size_wh[0])):
        grid = values.shape[axis]
        pixels = np.arange(size)
        position = {
            "half_pixel": (pixels + 0.5) * grid / size - 0.5,
            "align_corners": pixels * (grid - 1) / max(size - 1, 1),
            "asymmetric": pixels * grid / size,
        }[alignment].clip(0, grid - 1)
        low = np.floor(position).astype(int)
        share = np.expand_dims(position - low, tuple({0, 1, 2} - {axis}))
        high = np.minimum(low + 1, grid - 1)
        values = values.take(low, axis) * (1 - share) + values.take(high, axis) * share
    if len(values) == 1:
        values = np.concatenate([values, 1 - values])
    elif not probabilities:
        powers = np.exp(values - values.max(axis=0))
        values = powers / powers.sum(axis=0)
    second, first = np.sort(values, axis=0)[-2:]
    return np.asarray(first - second)


def random_scores(seed: int, classes: int, grid_wh: tuple[int, int], *, probabilities: bool) -> Scores:
    """Logits that are sure of a part of the picture, or a softmax of them; of one class a sigmoid."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 4, (classes, grid_wh[1], grid_wh[0])).astype(np.float32)
    if classes == 1:
        return np.asarray(1 / (1 + np.exp(-scores)), np.float32)
    if probabilities:
        powers = np.exp(scores - scores.max(axis=0))
        return np.asarray(powers / powers.sum(axis=0), np.float32)
    return scores


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("classes", [1, 2, 19, 40])
@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("grid_wh", [(40, 23), (19, 11), (300, 90)])
def test_every_pixel_is_that_of_the_plain_form(
    alignment: Alignment, classes: int, probabilities: bool, grid_wh: tuple[int, int]
) -> None:
    size_wh = (300, 90)
    scores = random_scores(classes, classes, grid_wh, probabilities=probabilities)
    margin = plain_margin(scores, size_wh, alignment, probabilities=probabilities)
    found = sure_pixels(scores, size_wh, alignment, probabilities=probabilities)
    clear = np.abs(margin - SURE_MARGIN) > 1e-5
    assert clear.mean() > 0.99
    assert 0.01 < found.mean() < 0.99
    assert np.array_equal(found[clear], margin[clear] >= SURE_MARGIN)


@settings(max_examples=60, deadline=None)
@given(
    random=st.tuples(seeds, st.integers(1, 6)),
    grid_wh=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size_wh=st.tuples(st.integers(1, 150), st.integers(1, 40)),
    alignment=st.sampled_from(ALIGNMENTS),
    probabilities=st.booleans(),
)
def test_no_size_is_special(
    random: tuple[int, int],
    grid_wh: tuple[int, int],
    size_wh: tuple[int, int],
    alignment: Alignment,
    probabilities: bool,
) -> None:
    scores = random_scores(*random, grid_wh, probabilities=probabilities)
    margin = plain_margin(scores, size_wh, alignment, probabilities=probabilities)
    found = sure_pixels(scores, size_wh, alignment, probabilities=probabilities)
    clear = np.abs(margin - SURE_MARGIN) > 1e-5
    assert np.array_equal(found[clear], margin[clear] >= SURE_MARGIN)


@pytest.mark.parametrize("probabilities", [False, True])
def test_between_two_sure_areas_of_different_classes_nothing_is_sure(probabilities: bool) -> None:
    """A margin of the coarse scores would be large all over."""
    high = 1.0 if probabilities else 8.0
    scores = np.array([[[high, 0.0]], [[0.0, high]]], np.float32)
    sure = sure_pixels(scores, (64, 4), "half_pixel", probabilities=probabilities)
    assert sure[:, :20].all()
    assert sure[:, -20:].all()
    assert not sure[:, 31:33].any()


def test_planes_that_lie_last_in_memory_are_taken_too() -> None:
    scores = random_scores(0, 5, (20, 10), probabilities=False)
    last = np.ascontiguousarray(scores.transpose(1, 2, 0)).transpose(2, 0, 1)
    for size_wh in ((80, 40), (20, 10)):
        sure, other = (sure_pixels(one, size_wh, "half_pixel", probabilities=False) for one in (scores, last))
        assert np.array_equal(sure, other)


@given(seeds, st.integers(1, 40), st.booleans())
def test_a_margin_is_a_share(seed: int, classes: int, probabilities: bool) -> None:
    margin = margin_of(random_scores(seed, classes, (7, 5), probabilities=probabilities), probabilities=probabilities)
    assert margin.dtype == np.float32
    assert margin.min() >= 0
    assert margin.max() <= 1


@given(seeds, st.integers(2, 40), st.floats(-1000, 1000))
def test_what_is_added_to_all_logits_changes_nothing(seed: int, classes: int, offset: float) -> None:
    scores = random_scores(seed, classes, (7, 5), probabilities=False)
    moved = margin_of(scores + np.float32(offset), probabilities=False)
    assert np.allclose(moved, margin_of(scores, probabilities=False), atol=1e-3)  # of logits rounded at 1000


def test_logits_of_any_size_have_a_margin() -> None:
    scores = np.array([1e4, -1e4, 0, 9e3], np.float32).reshape(4, 1, 1)
    assert margin_of(scores, probabilities=False) == 1


def test_memory_does_not_hold_all_classes_at_full_size() -> None:
    """150 classes of 1024x512 in float32 are 300 MiB."""
    scores = random_scores(0, 150, (128, 64), probabilities=False)
    sure_pixels(scores, (1024, 512), "half_pixel", probabilities=False)
    tracemalloc.start()
    try:
        sure_pixels(scores, (1024, 512), "half_pixel", probabilities=False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20


def test_it_is_that_of_opencvs_upsampling() -> None:
    scores = random_scores(3, 7, (32, 20), probabilities=False)
    large = np.stack([cv2.resize(plane, (256, 160), interpolation=cv2.INTER_LINEAR) for plane in scores])
    margin = margin_of(large.astype(np.float32), probabilities=False)
    clear = np.abs(margin - SURE_MARGIN) > 1e-4
    found = sure_pixels(scores, (256, 160), "half_pixel", probabilities=False)
    assert np.array_equal(found[clear], margin[clear] >= SURE_MARGIN)
