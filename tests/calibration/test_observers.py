"""A range that depends on the order of the frames, or that misses some, is another range at the next export."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from vidseg.calibration.observers import (
    BINS,
    Extremes,
    ExtremesObserver,
    Histogram,
    HistogramObserver,
    magnitude_counts,
)
from vidseg.runtime.errors import EngineError

Frames = list[NDArray[np.float32]]
seeds = st.integers(0, 2**32 - 1)
finite = st.floats(-(2.0**20), 2.0**20, width=32)


def frames_of(seed: int, count: int = 5) -> Frames:
    """Activations of 3 channels, (3, 40), of frames that differ in size and sign."""
    rng = np.random.default_rng(seed)
    return [(rng.normal(rng.normal(), 10 ** rng.uniform(-3, 3), (3, 40))).astype(np.float32) for _ in range(count)]


def extremes_of(frames: Frames) -> dict[str, Extremes]:
    observer = ExtremesObserver()
    for values in frames:
        observer.add({"a": values.min(axis=1)}, {"a": values.max(axis=1)})
    assert observer.frames == len(frames)
    return observer.extremes()


def histogram_of(frames: Frames, extremes: dict[str, Extremes]) -> Histogram:
    observer = HistogramObserver(extremes)
    for values in frames:
        observer.add({"a": values})
    assert observer.frames == len(frames)
    return observer.histograms()["a"]


def reference_counts(values: NDArray[np.float32], amax: float) -> NDArray[np.int64]:
    """The plain form: magnitudes in equal bins, what lies beyond in the last one."""
    return np.histogram(np.minimum(np.abs(values.astype(np.float64)), amax), BINS, (0, amax))[0].astype(np.int64)


@given(seeds, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_frames_changes_nothing(seed: int, rng: object) -> None:
    frames = frames_of(seed)
    other = list(frames)
    rng.shuffle(other)  # type: ignore[attr-defined]
    first, second = extremes_of(frames), extremes_of(other)
    assert np.array_equal(first["a"].low, second["a"].low)
    assert np.array_equal(first["a"].high, second["a"].high)
    found, again = histogram_of(frames, first), histogram_of(other, second)
    assert np.array_equal(found.counts, again.counts)
    assert (found.amax, found.signed) == (again.amax, again.signed)


@given(seeds)
def test_extremes_are_those_of_all_frames_together(seed: int) -> None:
    frames = frames_of(seed)
    everything = np.concatenate(frames, axis=1)
    found = extremes_of(frames)["a"]
    assert np.array_equal(found.low, everything.min(axis=1))
    assert np.array_equal(found.high, everything.max(axis=1))
    assert found.amax == np.abs(everything).max()
    assert found.signed == (everything < 0).any()


@given(seeds)
def test_the_histogram_of_many_frames_is_that_of_all_values(seed: int) -> None:
    frames = frames_of(seed)
    extremes = extremes_of(frames)
    found = histogram_of(frames, extremes)
    assert np.array_equal(found.counts, reference_counts(np.concatenate(frames), extremes["a"].amax))
    assert found.counts.sum() == sum(values.size for values in frames)


@given(arrays(np.float32, st.integers(1, 300), elements=finite), st.integers(-10, 20))
@settings(deadline=None)
def test_counts_are_those_of_the_plain_form(values: NDArray[np.float32], exponent: int) -> None:
    """Bins of a power of two are exact, so that values at their edges are too."""
    amax = 2.0**exponent
    assert np.array_equal(magnitude_counts(values, amax), reference_counts(values, amax))


@given(st.floats(2.0**-110, 2.0**120, width=32), seeds)
def test_any_range_counts_every_value_and_puts_it_in_its_bin(amax: float, seed: int) -> None:
    shares = np.random.default_rng(seed).random(200)
    values = (shares * amax).astype(np.float32)
    counts = magnitude_counts(values, amax)
    assert counts.sum() == values.size
    upper = np.sort(np.abs(values.astype(np.float64)))
    bins = np.repeat(np.arange(BINS), counts)
    assert (bins * (amax / BINS) <= upper * (1 + 1e-6)).all()
    assert ((bins + 1) * (amax / BINS) >= upper * (1 - 1e-6)).all()


def test_the_largest_value_and_what_lies_beyond_are_in_the_last_bin() -> None:
    counts = magnitude_counts(np.array([3.0, -3.0, 7.0, 0.0], np.float32), 3.0)
    assert counts[-1] == 3
    assert counts[0] == 1
    assert counts.dtype == np.int64


def test_what_was_seen_stays_when_an_engine_uses_its_memory_again() -> None:
    values = np.array([1.0, -2.0], np.float32)
    observer = ExtremesObserver()
    observer.add({"a": values}, {"a": values})
    values[:] = 99
    found = observer.extremes()["a"]
    assert (found.low.tolist(), found.high.tolist()) == ([1, -2], [1, -2])


def test_histograms_that_were_given_do_not_change_with_more_frames() -> None:
    observer = HistogramObserver({"a": Extremes(np.zeros(1, np.float32), np.ones(1, np.float32))})
    observer.add({"a": np.ones(4, np.float32)})
    found = observer.histograms()["a"]
    observer.add({"a": np.ones(4, np.float32)})
    assert found.counts.sum() == 4


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_number_are_an_error_that_names_the_activation(bad: float) -> None:
    fine = np.ones(2, np.float32)
    for low, high in ((fine, np.array([1, bad], np.float32)), (np.array([bad, 1], np.float32), fine)):
        with pytest.raises(EngineError, match="'layer4'"):
            ExtremesObserver().add({"layer4": low}, {"layer4": high})


def test_an_activation_that_is_zero_everywhere_has_no_counts() -> None:
    zeros = np.zeros((3, 4), np.float32)
    extremes = extremes_of([zeros])
    found = histogram_of([zeros], extremes)
    assert (found.amax, found.signed, found.counts.sum()) == (0, False, 0)


def test_bin_centers_are_in_the_middle() -> None:
    found = Histogram(np.zeros(BINS, np.int64), 4.0, signed=False)
    assert found.centers[0] == 2.0 / BINS
    assert found.centers[-1] == 4.0 - 2.0 / BINS


def test_memory_does_not_grow_with_the_number_of_frames() -> None:
    frame = np.random.default_rng(0).random((4, 50_000), np.float32)
    first = ExtremesObserver()
    first.add({"a": frame.min(axis=1)}, {"a": frame.max(axis=1)})
    second = HistogramObserver(first.extremes())

    def held_after(frames: int) -> int:
        for _ in range(frames):
            first.add({"a": frame.min(axis=1)}, {"a": frame.max(axis=1)})
            second.add({"a": frame})
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        few, many = held_after(5), held_after(40)
    finally:
        tracemalloc.stop()
    assert many - few < 4096
