"""From a histogram of magnitudes to the largest one that is kept: the rest is clipped.

Each method answers the same question: how much of the tail to give up so that the rest gets finer steps.
"""

from __future__ import annotations

from math import log

import numpy as np
from numpy.typing import NDArray

from vidseg.calibration.observers import BINS, Histogram

QMAX = 127
"""Steps between zero and the largest magnitude, of symmetric 8-bit values without -128."""

PERCENTILES = (99.9, 99.99, 99.999)
METHODS = ("max", *(f"percentile_{share}" for share in PERCENTILES), "mse", "entropy")

_MSE_STEP = 16  # bins between candidates: the error is flat around its minimum
_ENTROPY_STEP = 8


def candidate_ranges(histogram: Histogram) -> dict[str, float]:
    """The largest magnitude to keep, above zero, by each of METHODS.

    An activation that is zero everywhere gets a range of 1: any will do.
    """
    if histogram.amax <= 0 or not histogram.counts.any():
        return dict.fromkeys(METHODS, histogram.amax if histogram.amax > 0 else 1.0)
    return {
        "max": histogram.amax,
        **{f"percentile_{share}": percentile_amax(histogram, share) for share in PERCENTILES},
        "mse": mse_amax(histogram),
        "entropy": entropy_amax(histogram),
    }


def percentile_amax(histogram: Histogram, share: float) -> float:
    """The upper end of the bin that holds the `share` per cent smallest magnitude."""
    cumulative = np.cumsum(histogram.counts)
    wanted = cumulative[-1] * (share / 100)
    number = int(np.searchsorted(cumulative, wanted - 0.5))
    return histogram.amax * (min(number, BINS - 1) + 1) / BINS


def mse_amax(histogram: Histogram) -> float:
    """The range with the least mean squared error of rounding and clipping (Sung et al., Resiliency of deep neural
    networks under quantization, 2015)."""
    candidates = np.arange(QMAX, BINS + 1, _MSE_STEP)
    candidates[-1] = BINS
    amaxes = candidates * (histogram.amax / BINS)
    used = np.flatnonzero(histogram.counts)
    centers, counts = histogram.centers[used], histogram.counts[used].astype(np.float64)
    errors = [_squared_error(centers, counts, amax) for amax in amaxes]
    return float(amaxes[int(np.argmin(errors))])


def _squared_error(centers: NDArray[np.float64], counts: NDArray[np.float64], amax: float) -> float:
    scale = amax / QMAX
    kept = np.minimum(np.rint(centers / scale), QMAX) * scale
    # Within a bin as wide as a fraction of the scale, rounding is uniform; the centre stands for all of it.
    return float((counts * (centers - kept) ** 2).sum())


def entropy_amax(histogram: Histogram) -> float:
    """The range whose quantized distribution loses the least information (Migacz, 8-bit inference with TensorRT, GTC
    2017): the Kullback-Leibler divergence from the clipped distribution to the same in 128 steps is smallest."""
    counts = histogram.counts.astype(np.float64)
    counts[0] = counts[1]  # zeros come back exactly whatever the range, and there are many behind a ReLU
    best, best_amax = np.inf, histogram.amax
    total = np.cumsum(counts)
    for end in range(QMAX + 1, BINS + 1, _ENTROPY_STEP):
        if total[end - 1] == 0:
            continue
        divergence = _divergence(counts, end, float(total[-1] - total[end - 1]))
        if divergence < best:
            best, best_amax = divergence, histogram.amax * end / BINS
    return float(best_amax)


def _divergence(counts: NDArray[np.float64], end: int, clipped: float) -> float:
    """Of the first `end` bins, with all that is beyond in the last of them, from the same in QMAX + 1 steps."""
    reference = counts[:end].copy()
    reference[-1] += clipped
    steps = np.arange(end) * (QMAX + 1) // end
    filled = counts[:end] > 0
    sums = np.bincount(steps, counts[:end], QMAX + 1)
    sizes = np.bincount(steps, filled, QMAX + 1)
    spread = np.where(filled, sums[steps] / np.maximum(sizes[steps], 1), 0.0)
    both = (reference > 0) & (spread > 0)
    missing = reference[(reference > 0) & ~both].sum()
    p = reference / reference.sum()
    q = spread / max(spread.sum(), 1e-300)
    # A bin that the steps cannot hold is an infinite loss; it weighs as one of probability 1e-12 instead.
    loss = float((p[both] * np.log(p[both] / q[both])).sum())
    return loss + float(missing / reference.sum()) * log(1e12)
