"""Exact argmax of bilinearly upsampled scores, without upsampling them.

Bilinear interpolation is a convex combination of four corners: where one class is ahead at all four, it is ahead
everywhere between them. So most of the picture is filled in whole cells, and only cells on the borders of classes are
interpolated, for those classes alone that could win there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.frame import ClassMap

Scores: TypeAlias = NDArray[np.float32]
Alignment: TypeAlias = Literal["half_pixel", "align_corners", "asymmetric"]
"""How the pixels of the two grids lie to each other, as in ONNX's Resize (`coordinate_transformation_mode`)."""


@dataclass(frozen=True, slots=True, eq=False)
class _Axis:
    """One axis of the output, cut into cells: the pixels between two neighbours of the coarse grid.

    Cell i lies between grid lines i - 1 and i; the first and the last cell are outside of the grid, where both
    neighbours are the same line.

    Attributes:
        low, high: (cells,) grid lines on both sides.
        weight: (cells, span) share of `high`, of each pixel of a cell; cells with fewer pixels are padded.
        place: (pixels,) where each pixel of the output lies in cells * span.
        cell: (pixels,) which cell it lies in.
    """

    low: NDArray[np.intp]
    high: NDArray[np.intp]
    weight: NDArray[np.float32]
    place: NDArray[np.intp]
    cell: NDArray[np.intp]

    @classmethod
    def of(cls, grid_size: int, size: int, alignment: Alignment) -> _Axis:
        pixels = np.arange(size, dtype=np.float64)
        if alignment == "half_pixel":
            position = (pixels + 0.5) * (grid_size / size) - 0.5
        elif alignment == "align_corners":
            position = pixels * ((grid_size - 1) / max(size - 1, 1))
        else:
            position = pixels * (grid_size / size)
        position = position.clip(-0.5, grid_size - 0.5)
        below = np.floor(position).astype(np.intp)
        share = np.where((below < 0) | (below >= grid_size - 1), 0.0, position - below)
        cell = below + 1
        starts = np.searchsorted(cell, np.arange(grid_size + 2))
        span = max(int(np.diff(starts).max()), 1)
        within = np.arange(size) - starts[cell]
        weight = np.zeros((grid_size + 1, span), np.float32)
        weight[cell, within] = share
        lines = np.arange(grid_size + 1)
        return cls((lines - 1).clip(0), lines.clip(max=grid_size - 1), weight, cell * span + within, cell)

    @property
    def span(self) -> int:
        return int(self.weight.shape[1])

    def cut(self, padded: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Without the padding of the cells along the first axis: (cells * span, n) to (pixels, n)."""
        first, last = int(self.place[0]), int(self.place[-1])
        if last - first == len(self.place) - 1:  # a whole stride: only the outer cells are padded
            return padded[first : last + 1]
        return padded.take(self.place, axis=0)

    @property
    def shares(self) -> NDArray[np.float32]:
        """(pixels,) share of the higher neighbour."""
        return self.weight.ravel()[self.place]


class SparseUpsampler:
    """Class maps from scores on a coarse grid; equal, pixel by pixel, to `dense_class_map`.

    Args:
        grid_wh: size of the scores.
        size_wh: size of the class maps.
        alignment: of the two grids.
    """

    def __init__(self, grid_wh: tuple[int, int], size_wh: tuple[int, int], alignment: Alignment = "half_pixel") -> None:
        self._columns = _Axis.of(grid_wh[0], size_wh[0], alignment)
        self._rows = _Axis.of(grid_wh[1], size_wh[1], alignment)
        self._grid_wh = grid_wh

    def class_map(self, scores: Scores) -> ClassMap:
        """The class of each pixel, (H, W) uint8, from scores (classes, h, w) float32; of equal scores the first class.

        Where a class is ahead at all four corners it is taken even if rounding makes another one equal in between.
        """
        rows, columns = self._rows, self._columns
        winners = _argmax(scores)
        corners = [
            winners[line].take(other, axis=1) for line in (rows.low, rows.high) for other in (columns.low, columns.high)
        ]
        mixed = (corners[0] != corners[1]) | (corners[0] != corners[2]) | (corners[0] != corners[3])
        row, column = np.nonzero(mixed)
        cells = corners[0].repeat(columns.span, axis=1).repeat(rows.span, axis=0)
        if row.size:
            blocks = cells.reshape(len(rows.low), rows.span, len(columns.low), columns.span)
            blocks[row, :, column, :] = self._interpolated(scores, row, column, [corner[mixed] for corner in corners])
        return np.ascontiguousarray(columns.cut(rows.cut(cells).T).T)

    def plane(self, values: Scores) -> Scores:
        """Upsample one plane, (h, w) to (H, W) float32."""
        upsampled: Scores = _dense_scores(values[None], self._rows, self._columns)[0]
        return upsampled

    def _interpolated(
        self, scores: Scores, row: NDArray[np.intp], column: NDArray[np.intp], winners: list[ClassMap]
    ) -> ClassMap:
        """The classes in some cells, (cells, rows, columns) uint8. Arrays have the cells last: long inner loops."""
        width = self._grid_wh[0]
        flat = scores.reshape(len(scores), -1)
        places = [
            lines[row] * width + others[column]
            for lines in (self._rows.low, self._rows.high)
            for others in (self._columns.low, self._columns.high)
        ]
        corners = [flat.take(place, axis=1) for place in places]
        # Candidates (cell, class), by cell and then by class; those of one rank within their cells are done together.
        cell, class_id = np.nonzero(_can_win(corners, winners).T)
        count = np.bincount(cell, minlength=len(row))
        order = np.argsort(-count, kind="stable")
        starts = np.cumsum(count) - count
        below, right = self._rows.weight[row[order]].T, self._columns.weight[column[order]].T
        above, left = np.float32(1) - below, np.float32(1) - right
        best = ids = None
        for rank in range(int(count.max())):
            cells = order[: np.searchsorted(-count[order], -rank)]  # those with more candidates than `rank`
            number = len(cells)
            found = class_id[starts[cells] + rank]
            a, b, c, d = (corner[found, cells] for corner in corners)
            west = a * above[:, :number] + c * below[:, :number]
            east = b * above[:, :number] + d * below[:, :number]
            values = west[:, None] * left[None, :, :number] + east[:, None] * right[None, :, :number]
            if best is None or ids is None:
                best, ids = values, np.empty(values.shape, np.uint8)
                ids[:] = found.astype(np.uint8)
                continue
            ahead = values > best[..., :number]
            np.copyto(ids[..., :number], found.astype(np.uint8), where=ahead)
            np.maximum(best[..., :number], values, out=best[..., :number])
        assert ids is not None
        in_order = np.empty((len(row), self._rows.span, self._columns.span), np.uint8)
        in_order[order] = ids.transpose(2, 0, 1)
        return in_order


def dense_class_map(scores: Scores, size_wh: tuple[int, int], alignment: Alignment = "half_pixel") -> ClassMap:
    """The same as `SparseUpsampler.class_map` in its simplest form: upsample everything, then compare."""
    rows = _Axis.of(scores.shape[1], size_wh[1], alignment)
    columns = _Axis.of(scores.shape[2], size_wh[0], alignment)
    class_map: ClassMap = _dense_scores(scores, rows, columns).argmax(axis=0).astype(np.uint8)
    return class_map


def _dense_scores(scores: Scores, rows: _Axis, columns: _Axis) -> Scores:
    """Bilinear, rows first: (n, h, w) to (n, H, W) float32."""
    below, right = rows.shares[:, None], columns.shares
    above, left = np.float32(1) - below, np.float32(1) - right
    tall = scores[:, rows.low[rows.cell]] * above + scores[:, rows.high[rows.cell]] * below
    wide: Scores = tall[..., columns.low[columns.cell]] * left + tall[..., columns.high[columns.cell]] * right
    return wide


def _argmax(scores: Scores) -> ClassMap:
    """`scores.argmax(axis=0)` as uint8; eight times faster, because it runs along whole planes."""
    best = scores[0].copy()
    winner: ClassMap = np.zeros(best.shape, np.uint8)
    ahead = np.empty(best.shape, np.bool_)
    for class_id in range(1, len(scores)):
        np.greater(scores[class_id], best, out=ahead)
        np.maximum(best, scores[class_id], out=best)
        np.maximum(winner, ahead.view(np.uint8) * np.uint8(class_id), out=winner)
    return winner


def _can_win(corners: list[Scores], winners: list[ClassMap]) -> NDArray[np.bool_]:
    """(classes, cells): False for a class that the winner of some corner is ahead of at all four."""
    possible = np.ones(corners[0].shape, np.bool_)
    cells = np.arange(corners[0].shape[1])
    for winner in winners:
        behind = np.ones(corners[0].shape, np.bool_)
        for corner in corners:
            behind &= corner < corner[winner, cells]
        possible &= ~behind
    return possible
