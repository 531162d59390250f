"""Where a model is sure of a pixel: its most probable class leads by far, at the size of the class map.

Scores on a coarse grid are upsampled before they become probabilities, as the model itself does. Halfway between two
areas of which it is sure, where two classes are alike, it is not; a margin of the coarse grid would be large there.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.upsampling import Alignment, Scores, SparseUpsampler

SURE_MARGIN = 0.5
"""Between the two largest probabilities, from which on a model is sure of a pixel."""

_TILE_HW = (32, 128)
"""Of the pixels that are worked on at a time, for all classes: as few as numpy takes without losing speed; measured."""


def sure_pixels(
    scores: Scores, size_wh: tuple[int, int], alignment: Alignment, *, probabilities: bool
) -> NDArray[np.bool_]:
    """The pixels of which a model is sure, (H, W) bool. Beside the scores, memory is that of a tile of all classes.

    Args:
        scores: (classes, h, w) float32; a single class is the probability of the foreground.
        size_wh: of the result; where it is not that of the scores, they are upsampled, bilinear.
        alignment: of the two grids.
        probabilities: the scores are probabilities, not logits.
    """
    sure = np.empty(size_wh[::-1], np.bool_)
    for rows, columns, tile in _tiles(scores, size_wh, alignment):
        sure[rows, columns] = margin_of(tile, probabilities=probabilities) >= SURE_MARGIN
    return sure


def margin_of(scores: Scores, *, probabilities: bool) -> NDArray[np.float32]:
    """By how much the most probable class leads: (classes, h, w) float32 scores to (h, w) float32 in 0..1.

    Logits become probabilities by a softmax. A single class is a probability, against its complement.
    """
    if len(scores) == 1:
        return np.asarray(np.abs(2 * scores[0] - 1), np.float32)
    first, second = np.maximum(scores[0], scores[1]), np.minimum(scores[0], scores[1])
    between = np.empty_like(first)
    for plane in scores[2:]:  # along whole planes: many times faster than a partition by pixel
        np.maximum(second, np.minimum(first, plane, out=between), out=second)
        np.maximum(first, plane, out=first)
    if probabilities:
        return np.asarray(first - second)
    powers = scores - first
    np.exp(powers, out=powers)
    return np.asarray((1 - np.exp(second - first)) / powers.sum(axis=0), np.float32)


def _tiles(
    scores: Scores, size_wh: tuple[int, int], alignment: Alignment
) -> Iterator[tuple[slice, slice, NDArray[np.float32]]]:
    """Rows and columns of the result, and the scores there, (classes, rows, columns)."""
    if scores.shape[1:] == size_wh[::-1]:
        for start in range(0, size_wh[1], _TILE_HW[0]):
            rows = slice(start, start + _TILE_HW[0])
            yield rows, slice(None), scores[:, rows]
        return
    down, right = (_weights(scores.shape[2 - axis], size_wh[axis], alignment) for axis in (1, 0))
    for rows, lines in _pieces(down, _TILE_HW[0]):
        for columns, others in _pieces(right, _TILE_HW[1]):
            wide = np.ascontiguousarray(scores[:, lines, others]) @ right[columns, others].T
            yield rows, columns, down[rows, lines] @ wide


@lru_cache(maxsize=4)
def _weights(grid_size: int, size: int, alignment: Alignment) -> NDArray[np.float32]:
    """The matrix that upsamples an axis, (size, grid_size) float32: what becomes of the axis's unit vectors."""
    vectors = np.eye(grid_size, dtype=np.float32)
    weights: NDArray[np.float32] = SparseUpsampler((grid_size, grid_size), (grid_size, size), alignment).plane(vectors)
    weights.flags.writeable = False
    return weights


def _pieces(weights: NDArray[np.float32], size: int) -> Iterator[tuple[slice, slice]]:
    """An axis of the result in pieces, each with the lines of the grid that it is made of."""
    for start in range(0, len(weights), size):
        lines = np.flatnonzero(weights[start : start + size].any(axis=0))
        yield slice(start, start + size), slice(int(lines[0]), int(lines[-1]) + 1)
