"""A range that is too wide loses the small values, one that is too narrow the large ones: both cost mIoU."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vidseg.calibration.observers import BINS, Histogram, magnitude_counts
from vidseg.calibration.ranges import (
    METHODS,
    PERCENTILES,
    QMAX,
    candidate_ranges,
    entropy_amax,
    mse_amax,
    percentile_amax,
)

seeds = st.integers(0, 2**32 - 1)


def samples(seed: int) -> NDArray[np.float32]:
    """Of an activation: a few kinds of distribution, with or without far outliers and zeros."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 20_000))
    kinds = (rng.normal(0, 1, count), rng.laplace(0, 1, count), rng.random(count), rng.standard_t(2, count))
    values = kinds[rng.integers(len(kinds))] * 10 ** rng.uniform(-4, 4)
    if rng.random() < 0.5:
        values = np.maximum(values, 0)
    if rng.random() < 0.3:
        values[rng.integers(count)] *= 50
    return values.astype(np.float32)


def histogram_of(values: NDArray[np.float32]) -> Histogram:
    amax = float(np.abs(values).max())
    counts = magnitude_counts(values, amax) if amax > 0 else np.zeros(BINS, np.int64)
    return Histogram(counts, amax, bool((values < 0).any()))


sampled = seeds.map(samples).filter(lambda values: bool(values.any()))
histograms = sampled.map(histogram_of)


def quantization_error(values: NDArray[np.float64], counts: NDArray[np.float64], amax: float) -> float:
    scale = amax / QMAX
    steps = np.clip(np.round(values / scale), -QMAX, QMAX)
    return float(np.sum(counts * (values - steps * scale) ** 2))


@given(histograms)
@settings(deadline=None, max_examples=30)
def test_each_method_gives_a_range_within_what_was_seen(histogram: Histogram) -> None:
    ranges = candidate_ranges(histogram)
    assert tuple(ranges) == METHODS
    assert ranges["max"] == histogram.amax
    assert all(0 < amax <= histogram.amax * (1 + 1e-12) for amax in ranges.values())


@given(histograms, st.sampled_from([*PERCENTILES, 50.0, 90.0]))
@settings(deadline=None)
def test_a_percentile_is_the_upper_end_of_its_values_bin(histogram: Histogram, share: float) -> None:
    """The value whose rank is nearest to `share` per cent of all, in exact arithmetic; of two as near, either."""
    bins = np.repeat(np.arange(BINS), histogram.counts)
    rank = Fraction(str(share)) / 100 * len(bins)
    ranks = {max(ceil(rank - Fraction(1, 2)), 1), max(floor(rank + Fraction(1, 2)), 1)}
    found = percentile_amax(histogram, share) * BINS / histogram.amax
    assert any(found == pytest.approx(bins[number - 1] + 1, rel=1e-9) for number in ranks)


@given(histograms)
@settings(deadline=None)
def test_percentiles_clip_no_more_than_their_share(histogram: Histogram) -> None:
    amaxes = [percentile_amax(histogram, share) for share in PERCENTILES]
    assert amaxes == sorted(amaxes)
    for share, amax in zip(PERCENTILES, amaxes, strict=True):
        beyond = histogram.counts[histogram.centers > amax].sum()
        assert beyond <= histogram.counts.sum() * (1 - share / 100) + 0.5


@given(sampled)
@settings(deadline=None, max_examples=40)
def test_no_other_range_has_less_squared_error(values: NDArray[np.float32]) -> None:
    histogram = histogram_of(values)
    used = histogram.counts > 0
    centers, counts = histogram.centers[used], histogram.counts[used].astype(np.float64)
    chosen = mse_amax(histogram)
    found = quantization_error(centers, counts, chosen)
    for bins in (*range(QMAX, BINS - 1, 16), BINS):
        other = quantization_error(centers, counts, bins * histogram.amax / BINS)
        assert found <= other * (1 + 1e-9)


@given(seeds)
@settings(deadline=None, max_examples=30)
def test_the_squared_error_of_the_values_themselves_is_hardly_more_than_by_any_method(seed: int) -> None:
    """Where values are many, so that the histogram tells of them."""
    rng = np.random.default_rng(seed)
    kinds = (rng.normal(0, 1, 30_000), rng.laplace(0, 1, 30_000), rng.random(30_000))
    values = kinds[seed % len(kinds)].astype(np.float32)
    ranges = candidate_ranges(histogram_of(values))
    errors = {
        method: quantization_error(values.astype(np.float64), np.ones(values.size), amax)
        for method, amax in ranges.items()
    }
    assert errors["mse"] <= 1.03 * min(errors.values())


def reference_divergence(counts: list[float], end: int) -> float:
    """Migacz's loop, one bin after the other, in 128 steps; a bin that no step holds weighs as one of 1e-12."""
    steps = QMAX + 1
    reference = counts[:end]
    reference[-1] += sum(counts[end:])
    sums, filled = [0.0] * steps, [0] * steps
    for number in range(end):
        sums[number * steps // end] += counts[number]
        filled[number * steps // end] += counts[number] > 0
    spread = [
        sums[number * steps // end] / filled[number * steps // end] if counts[number] > 0 else 0.0
        for number in range(end)
    ]
    total_p, total_q = sum(reference), sum(spread)
    loss = 0.0
    for p, q in zip(reference, spread, strict=True):
        if p > 0 and q > 0:
            loss += p / total_p * log((p / total_p) / (q / total_q))
        elif p > 0:
            loss += p / total_p * log(1e12)
    return loss


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_entropy_takes_the_candidate_that_loses_the_least_information(seed: int) -> None:
    """With gaps in the tail, so that steps hold bins with and without counts."""
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.laplace(0, 1, 3000), rng.uniform(3, 12, 60)]).astype(np.float32)
    histogram = histogram_of(values)
    counts = [float(count) for count in histogram.counts]
    counts[0] = counts[1]
    losses = {end: reference_divergence(counts, end) for end in range(QMAX + 1, BINS + 1, 8)}
    chosen = round(entropy_amax(histogram) * BINS / histogram.amax)
    assert losses[chosen] <= min(losses.values()) + 1e-9


@given(histograms, st.integers(0, 10**7))
@settings(deadline=None, max_examples=20)
def test_zeros_behind_an_activation_do_not_change_the_range_by_entropy(histogram: Histogram, zeros: int) -> None:
    counts = histogram.counts.copy()
    counts[0] += zeros
    assert entropy_amax(Histogram(counts, histogram.amax, histogram.signed)) == entropy_amax(histogram)


@given(histograms)
@settings(deadline=None, max_examples=30)
def test_entropy_and_error_take_one_of_their_candidates(histogram: Histogram) -> None:
    for amax, step in ((entropy_amax(histogram), 8), (mse_amax(histogram), 16)):
        bins = amax * BINS / histogram.amax
        assert bins == pytest.approx(round(bins))
        assert QMAX <= round(bins) <= BINS
        assert round(bins) == BINS or (round(bins) - QMAX) % step in {0, 1}


@given(sampled)
@settings(deadline=None, max_examples=20)
def test_a_model_scaled_by_two_has_ranges_scaled_by_two(values: NDArray[np.float32]) -> None:
    one, two = candidate_ranges(histogram_of(values)), candidate_ranges(histogram_of(values * 2))
    assert two == pytest.approx({method: 2 * amax for method, amax in one.items()}, rel=1e-9)


def test_one_far_outlier_does_not_decide_the_range() -> None:
    values = np.random.default_rng(0).normal(0, 1, 200_000).astype(np.float32)
    values[7] = 200
    ranges = candidate_ranges(histogram_of(values))
    assert ranges["max"] == 200
    for method in ("percentile_99.9", "percentile_99.99", "percentile_99.999", "entropy"):
        assert ranges[method] < 15, method
    assert ranges["mse"] == pytest.approx(100, rel=0.05)  # where clipping it costs as much as rounding the others


def test_values_that_fill_their_range_evenly_are_not_clipped_for_error() -> None:
    values = np.linspace(0, 6, 50_000, dtype=np.float32)
    assert candidate_ranges(histogram_of(values))["mse"] == pytest.approx(6, rel=0.01)


@pytest.mark.parametrize("amax", [0.0, 2.5])
def test_an_activation_without_counts_has_a_range_all_the_same(amax: float) -> None:
    ranges = candidate_ranges(Histogram(np.zeros(BINS, np.int64), amax, signed=False))
    assert ranges == dict.fromkeys(METHODS, amax or 1.0)


@pytest.mark.parametrize("bins", [{0: 5}, {BINS - 1: 5}, {0: 100, BINS - 1: 1}, {1: 1}, {200: 3, 201: 1}])
def test_a_histogram_of_a_single_bin_or_two_has_ranges(bins: dict[int, int]) -> None:
    counts = np.zeros(BINS, np.int64)
    for number, count in bins.items():
        counts[number] = count
    ranges = candidate_ranges(Histogram(counts, 1.0, signed=False))
    assert all(0 < amax <= 1 for amax in ranges.values())
