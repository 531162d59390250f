"""What the kernels look up: positions, weights and colours, made on the host with the CPU's own rounding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.geometry import Placement
from vidseg.runtime.manifest import ClassSpec
from vidseg.runtime.overlay import OverlayStyle
from vidseg.runtime.palette import distinct_colors

_ONE = np.float32(2048)
"""A weight of 1: OpenCV's INTER_RESIZE_COEF_SCALE (imgproc/src/resize.cpp)."""


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What becomes of a frame's pixel, by its class.

    Attributes:
        table: (256, 4) uint16. A channel is (frame * table[id, 3] + table[id, channel]) >> 8, blue first.
    """

    table: NDArray[np.uint16]

    def __post_init__(self) -> None:
        self.table.flags.writeable = False


def look_of(classes: Sequence[ClassSpec], style: OverlayStyle) -> Look:
    """The colours that `Overlay` draws in this style: its views `over` and `mask`, without outline and text."""
    mask = style.view == "mask"
    share = round((1 if mask else style.alpha) * 256)
    colors = [spec.color_rgb for spec in classes]
    if style.colors == "distinct":
        colors = distinct_colors([None] * len(classes))
    table = np.zeros((256, 4), np.uint16)
    table[:, 3] = 0 if mask else 256  # unknown and hidden: the picture below, which is black for a mask
    for class_id, (spec, color) in enumerate(zip(classes, colors, strict=True)):
        if spec.name not in style.hidden:
            table[class_id, :3] = [level * share + 128 for level in reversed(color)]
            table[class_id, 3] = 256 - share
    return Look(table)


def fit_table(placement: Placement) -> NDArray[np.int32]:
    """For each column, then each row of the input, (w + h, 4) int32: the frame's two neighbours and their weights.

    As OpenCV makes them for INTER_LINEAR of 8 bits: positions in float64, then fractions in float32, weights rounded to
    1/2048. The neighbours are -1 where the frame does not reach.
    """
    return np.concatenate([_neighbours(placement, axis) for axis in (0, 1)])


def _neighbours(placement: Placement, axis: int) -> NDArray[np.int32]:
    frame_size, scaled_size = placement.frame_wh[axis], placement.scaled_wh[axis]
    scaled = np.arange(placement.input_wh[axis]) - placement.offset_xy[axis]
    position = ((scaled + 0.5) * (1 / (scaled_size / frame_size)) - 0.5).astype(np.float32)
    first = np.floor(position)
    fraction = position - first
    table = np.empty((len(scaled), 4), np.int32)
    table[:, 0] = first.clip(0, frame_size - 1)
    table[:, 1] = (first + 1).clip(0, frame_size - 1)
    table[:, 2] = np.rint((1 - fraction) * _ONE)
    table[:, 3] = np.rint(fraction * _ONE)
    table[(scaled < 0) | (scaled >= scaled_size), :2] = -1
    return table


def blend_table(placement: Placement, grid_wh: tuple[int, int]) -> NDArray[np.int32]:
    """For each column, then each row of the frame, (W + H) int32: the nearest of the output grid, padding and all.

    The same as `Segmentation.at_frame_size()` takes; -1 where the grid does not reach.
    """
    return np.concatenate([_nearest(placement, grid_wh, axis) for axis in (0, 1)])


def _nearest(placement: Placement, grid_wh: tuple[int, int], axis: int) -> NDArray[np.int32]:
    affine = placement.grid_from_frame(grid_wh)
    first, end = placement.visible_span(grid_wh[axis], axis)
    nearest = np.rint(np.arange(placement.frame_wh[axis]) * affine[axis, axis] + affine[axis, 2]).astype(np.int32)
    return np.where((nearest >= 0) & (nearest < end - first), nearest + first, -1).astype(np.int32)
