"""Which frames to calibrate on and which to verify with: apart in time, and each set as diverse as it can be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidseg.calibration.frame_filter import NEAR_DUPLICATE, THUMBNAIL_WH, distances
from vidseg.calibration.k_center import farthest_points, squared_distances
from vidseg.runtime.errors import UsageError

EXTREMES_SHARE = 0.25
RARE_CLASSES_SHARE = 0.25
"""Of the frames to calibrate on, at most, are chosen for a single tensor or class; the others for diversity."""

RARE_CLASS = 0.01
"""A class with less of all pixels than this is rare."""

CANDIDATES_PER_STRETCH = 50
MAX_STRETCHES = 10
GAP_SHARE = 0.1
"""A source of n candidates has n / 50 stretches to verify with, 1 to 10 of them, each between two to calibrate on. A
gap takes this share of n / stretches: many stretches see more of the source in both sets, few have longer gaps."""


@dataclass(frozen=True, slots=True, eq=False)
class FrameFeatures:
    """What a model makes of a frame. What is not finite counts as 0.

    Attributes:
        vector: (d,) float32; frames whose vectors are near are alike to the model.
        extremes: (t,) float32, the largest absolute value in each watched tensor.
        class_shares: (c,) float32, the share of each class in the class map, 0..1.
    """

    vector: NDArray[np.float32]
    extremes: NDArray[np.float32]
    class_shares: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SelectionOptions:
    """How many frames.

    Attributes:
        calibration: frames to calibrate on, at most.
        verification: frames to verify with, at most; 0 where there are labelled ones, and all candidates are there to
            calibrate on.
        min_calibration, min_verification: with fewer than these, calibration is refused.
    """

    calibration: int = 100
    verification: int = 64
    min_calibration: int = 8
    min_verification: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.min_calibration <= self.calibration:
            raise UsageError(f"calibrating takes {self.min_calibration} frames or more", str(self.calibration))
        if self.verification and not 1 <= self.min_verification <= self.verification:
            raise UsageError(f"verifying takes 0 frames, or {self.min_verification} or more", str(self.verification))


@dataclass(frozen=True, slots=True)
class Selection:
    """Positions of candidates, each set in ascending order.

    Attributes:
        calibration: to calibrate on.
        verification: to verify with.
        gap: so many candidates, at least, lie between one of the former and one of the latter; 0 where there is
            nothing to verify with.
        excluded: how many were left out for being nearly the same as a picture that the result is judged on.
    """

    calibration: tuple[int, ...]
    verification: tuple[int, ...]
    gap: int
    excluded: int = 0


def select(
    features: Sequence[FrameFeatures],
    thumbnails: NDArray[np.uint8],
    options: SelectionOptions,
    excluded: NDArray[np.uint8] | None = None,
) -> Selection:
    """Choose among candidates that are given in order of time. The same candidates give the same choice.

    The source is cut into alternating stretches with gaps between them. From those to calibrate on are taken: the
    frames that set the largest value of a watched tensor, those of most tensors first; the frames with most of each
    rare class, the rarest first; then the frames farthest from all chosen so far. From those to verify with: one of
    each of as many equal parts, the farthest from those chosen before; none that is nearly the same as one to calibrate
    on. Ties go to the earliest frame; the order of tensors and classes does not matter.

    Args:
        features: of each candidate.
        thumbnails: of each candidate, (n, 24, 32) uint8; see `frame_filter.thumbnail`.
        options: see `SelectionOptions`. There may be fewer frames than it asks for, or none.
        excluded: (m, 24, 32) uint8, thumbnails of pictures that the result is judged on: what is nearly the same as one
            of them is not calibrated on.
    """
    pools = _stretches(len(features), options)
    judged_on = np.empty((0, *THUMBNAIL_WH[::-1]), np.uint8) if excluded is None else excluded
    pool = _apart(pools.calibration, thumbnails, judged_on)
    excluded_count = len(pools.calibration) - len(pool)
    vectors = _normalised(features)
    calibration = _to_calibrate(pool, vectors, features, options.calibration)
    pool = _apart(pools.verification, thumbnails, thumbnails[list(calibration)])
    return Selection(calibration, _to_verify(pool, vectors, options.verification), pools.gap, excluded_count)


def _stretches(count: int, options: SelectionOptions) -> Selection:
    """Cut 0..count-1 into alternating stretches: C gap V gap C, or C gap V gap C gap V gap C, and so on."""
    if not options.verification:
        return Selection(tuple(range(count)), (), 0)
    stretches = max(1, min(count // CANDIDATES_PER_STRETCH, MAX_STRETCHES))
    gap = max(1, int(count / stretches * GAP_SHARE))
    usable = max(count - 2 * stretches * gap, 0)
    share = min(max(options.calibration / (options.calibration + options.verification), 1 / 3), 2 / 3)
    to_calibrate = round(usable * share)
    calibration: list[int] = []
    verification: list[int] = []
    first = 0
    for number in range(2 * stretches + 1):
        rows, total, parts = (
            (verification, usable - to_calibrate, stretches)
            if number % 2
            else (calibration, to_calibrate, stretches + 1)
        )
        length = total * (number // 2 + 1) // parts - total * (number // 2) // parts
        rows.extend(range(first, first + length))
        first += length + gap
    return Selection(tuple(calibration), tuple(verification), gap)


def _apart(pool: Sequence[int], thumbnails: NDArray[np.uint8], others: NDArray[np.uint8]) -> list[int]:
    return [position for position in pool if not (distances(others, thumbnails[position]) < NEAR_DUPLICATE).any()]


def _normalised(features: Sequence[FrameFeatures]) -> NDArray[np.float64]:
    """(n, d), each column with mean 0 and standard deviation 1, or 0 where it does not vary."""
    vectors = _finite([one.vector for one in features])
    if not len(vectors):
        return vectors
    deviation = vectors.std(axis=0)
    is_steady = deviation <= 1e-9 * np.abs(vectors).max(axis=0)
    return np.where(is_steady, 0.0, (vectors - vectors.mean(axis=0)) / np.where(is_steady, 1.0, deviation))


def _to_calibrate(
    pool: list[int], vectors: NDArray[np.float64], features: Sequence[FrameFeatures], count: int
) -> tuple[int, ...]:
    if not pool:
        return ()
    extremes = _finite([features[position].extremes for position in pool])
    shares = _finite([features[position].class_shares for position in pool])
    chosen = _setting_extremes(extremes)[: int(count * EXTREMES_SHARE)]
    rare = [row for row in _holding_rare_classes(shares) if row not in chosen]
    chosen += rare[: int(count * RARE_CLASSES_SHARE)]
    return tuple(sorted(pool[row] for row in farthest_points(vectors[pool], count, chosen)))


def _setting_extremes(extremes: NDArray[np.float64]) -> list[int]:
    """Rows that hold the largest value of a column, those with most columns first."""
    varying = extremes[:, extremes.max(axis=0) > extremes.min(axis=0)]
    wins = np.bincount(varying.argmax(axis=0), minlength=len(extremes))
    return [int(row) for row in np.argsort(-wins, kind="stable") if wins[row]]


def _holding_rare_classes(shares: NDArray[np.float64]) -> list[int]:
    """Rows with most of a rare column, the rarest first; each once."""
    total = shares.mean(axis=0)
    is_rare = (total > 0) & (total < RARE_CLASS)
    ranked = sorted((total[column], int(shares[:, column].argmax())) for column in np.flatnonzero(is_rare))
    return list(dict.fromkeys(row for _, row in ranked))


def _to_verify(pool: list[int], vectors: NDArray[np.float64], count: int) -> tuple[int, ...]:
    """One of each of `count` equal parts of the pool: there the farthest from those chosen before."""
    count = min(count, len(pool))
    chosen: list[int] = []
    nearest = np.full(len(vectors), np.inf)
    for part in range(count):
        rows = pool[part * len(pool) // count : (part + 1) * len(pool) // count]
        row = rows[int(nearest[rows].argmax())]
        chosen.append(row)
        nearest = np.minimum(nearest, squared_distances(vectors, vectors[row]))
    return tuple(chosen)


def _finite(rows: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
    table = np.array(rows, np.float64).reshape(len(rows), -1) if len(rows) else np.empty((0, 0))
    return np.nan_to_num(table, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
