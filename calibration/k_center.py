"""Choosing points so that none is far from a chosen one: the k-center problem."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def farthest_points(vectors: NDArray[np.float64], count: int, chosen: Sequence[int] = ()) -> list[int]:
    """Add to the chosen points, one by one, the one that is farthest from all of them, until there are `count`.

    Without chosen ones, the first is the one nearest to the mean. The largest distance of any point to the nearest
    chosen one is at most twice that of the best choice that has the same `chosen` in it (Gonzalez, "Clustering to
    minimize the maximum intercluster distance", Theoretical Computer Science 38, 1985).

    Args:
        vectors: (n, d) float64.
        count: at most n are chosen.
        chosen: rows that are chosen already.

    Returns:
        Rows: the chosen ones, then those added, in that order.
    """
    rows = list(chosen)
    if not rows and count > 0 and len(vectors):
        mean = np.sort(vectors, axis=0).mean(axis=0)  # sorted: rounding is the same whatever the order
        rows.append(int(squared_distances(vectors, mean).argmin()))
    nearest = np.full(len(vectors), np.inf)
    for row in rows:
        nearest = np.minimum(nearest, squared_distances(vectors, vectors[row]))
    nearest[rows] = -1
    while len(rows) < min(count, len(vectors)):
        row = int(nearest.argmax())
        rows.append(row)
        nearest = np.minimum(nearest, squared_distances(vectors, vectors[row]))
        nearest[row] = -1
    return rows


def squared_distances(vectors: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each of (n, d) vectors to another one, (d,); (n,) float64."""
    difference = vectors - other
    squares: NDArray[np.float64] = np.einsum("nd,nd->n", difference, difference)
    return squares
