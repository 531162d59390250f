"""Watching activations over many frames in a fixed amount of memory.

Two passes. The first finds the extremes of each channel; the second counts magnitudes in bins between zero and the
largest one, which are known by then. What is kept does not grow with the number of frames, and neither pass depends on
their order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.errors import EngineError

BINS = 2048
"""As TensorRT's entropy calibration has: Migacz, 8-bit inference with TensorRT, GTC 2017."""


@dataclass(frozen=True, slots=True, eq=False)
class Extremes:
    """The smallest and largest value of each channel of an activation, (channels,) float32 both."""

    low: NDArray[np.float32]
    high: NDArray[np.float32]

    @property
    def amax(self) -> float:
        """The largest magnitude."""
        return float(max(self.high.max(), -self.low.min()))

    @property
    def signed(self) -> bool:
        """True where a value below zero was seen."""
        return bool(self.low.min() < 0)

    def merged(self, other: Extremes) -> Extremes:
        """Of the frames of both."""
        return Extremes(np.minimum(self.low, other.low), np.maximum(self.high, other.high))


class ExtremesObserver:
    """The first pass."""

    def __init__(self) -> None:
        self._low: dict[str, NDArray[np.float32]] = {}
        self._high: dict[str, NDArray[np.float32]] = {}
        self.frames = 0

    def add(self, low: Mapping[str, NDArray[np.float32]], high: Mapping[str, NDArray[np.float32]]) -> None:
        """Take the smallest and largest values by channel of one frame, (channels,) float32 by activation.

        Raises:
            EngineError: a value is no number.
        """
        for kept, new, choose in ((self._low, low, np.minimum), (self._high, high, np.maximum)):
            for name, values in new.items():
                if not np.isfinite(values).all():
                    raise EngineError(f"activation {name!r} is no number", "NaN or infinity", "Check the model.")
                kept[name] = choose(kept[name], values) if name in kept else values.copy()
        self.frames += 1

    def extremes(self) -> dict[str, Extremes]:
        """What was seen so far, by activation."""
        return {name: Extremes(self._low[name], self._high[name]) for name in self._low}


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Magnitudes of an activation.

    Attributes:
        counts: (BINS,) int64; bin i holds magnitudes from i to i + 1 in units of `amax / BINS`.
        amax: the largest magnitude, the upper end of the last bin.
        signed: True where values below zero were seen.
    """

    counts: NDArray[np.int64]
    amax: float
    signed: bool

    @property
    def centers(self) -> NDArray[np.float64]:
        """(BINS,) the middle of each bin."""
        return np.asarray((np.arange(BINS) + 0.5) * (self.amax / BINS), np.float64)


class HistogramObserver:
    """The second pass.

    Args:
        extremes: of the first pass, by activation.
    """

    def __init__(self, extremes: Mapping[str, Extremes]) -> None:
        self._extremes = dict(extremes)
        self._counts = {name: np.zeros(BINS, np.int64) for name in extremes}
        self.frames = 0

    def add(self, activations: Mapping[str, NDArray[np.float32]]) -> None:
        """Count one frame: activations, or an even sample of them, float32 of any shape."""
        for name, values in activations.items():
            amax = self._extremes[name].amax
            if amax > 0:
                self._counts[name] += magnitude_counts(values, amax)
        self.frames += 1

    def histograms(self) -> dict[str, Histogram]:
        """What was counted so far, by activation; one that was zero everywhere has no counts."""
        return {
            name: Histogram(counts.copy(), self._extremes[name].amax, self._extremes[name].signed)
            for name, counts in self._counts.items()
        }


def magnitude_counts(values: NDArray[np.float32], amax: float) -> NDArray[np.int64]:
    """Count magnitudes in BINS bins of 0..amax; what lies beyond is in the last one. (BINS,) int64."""
    flat = np.ascontiguousarray(values, np.float32).reshape(1, -1)
    magnitudes = np.abs(flat)
    np.minimum(magnitudes, np.nextafter(np.float32(amax), np.float32(0)), out=magnitudes)
    counts = cv2.calcHist([magnitudes], [0], None, [BINS], [0.0, float(np.float32(amax))])
    return np.asarray(counts).ravel().astype(np.int64)
