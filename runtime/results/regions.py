"""Connected regions of a class, and how much of a picture each class covers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.frame import UNKNOWN, Segmentation
from vidseg.runtime.manifest import ClassSpec

TOLERANCE_PX = 1.0
"""By how much a polygon may miss a region's border, in pixels of the class map's grid."""


@dataclass(frozen=True, slots=True)
class Region:
    """Pixels of one class that touch each other, at a side or a corner.

    Attributes:
        class_name: of the model.
        area_px: of the frame, without what lies in its holes.
        box_xywh: the smallest box around it, in the frame's pixels: left and upper edge, width and height.
        polygon_xy: its outer border in the frame's pixels, simplified; holes are left out.
    """

    class_name: str
    area_px: int
    box_xywh: tuple[float, float, float, float]
    polygon_xy: tuple[tuple[float, float], ...]


def shares_of(segmentation: Segmentation, classes: Sequence[ClassSpec]) -> dict[str, float]:
    """Share of each class of all pixels that the model looked at, by name; what is unknown is missing from the sum."""
    return named_shares(segmentation.class_map.ravel(), classes)


def named_shares(ids: NDArray[np.uint8], classes: Sequence[ClassSpec]) -> dict[str, float]:
    """Share of each class among ids, (n,) uint8; 0 for all where there are none."""
    if not ids.size:
        return {spec.name: 0.0 for spec in classes}
    # 0.7 ms at 1280x720 and 0.05 ms at 256x144 on one core; np.bincount takes 1.9 and 0.08 ms.
    counts = cv2.calcHist([ids], [0], None, [UNKNOWN + 1], [0, UNKNOWN + 1]).ravel()
    return {spec.name: float(counts[number] / ids.size) for number, spec in enumerate(classes)}


def regions_of(
    segmentation: Segmentation,
    classes: Sequence[ClassSpec],
    *,
    wanted: Collection[str] | None = None,
    min_area_px: float = 0.0,
) -> list[Region]:
    """The regions of a result, the largest first.

    Args:
        segmentation: the result.
        classes: of the model.
        wanted: names of the classes that count; None for all.
        min_area_px: smaller ones are left out, in pixels of the frame.
    """
    grid = _Grid(segmentation.grid_from_frame)
    found: list[Region] = []
    for number in np.unique(segmentation.class_map).tolist():
        if number < len(classes) and (wanted is None or classes[number].name in wanted):
            found += _regions_of_class(segmentation.class_map == number, classes[number].name, grid, min_area_px)
    return sorted(found, key=lambda region: -region.area_px)


class _Grid:
    """From a class map's pixels to those of its frame; pixel centres lie at whole numbers in both."""

    def __init__(self, grid_from_frame: NDArray[np.float64]) -> None:
        (self._scale_x, _, self._shift_x), (_, self._scale_y, self._shift_y) = grid_from_frame.tolist()
        self.px_per_cell = 1 / (self._scale_x * self._scale_y)

    def frame_xy(self, x: float, y: float) -> tuple[float, float]:
        """A point of the frame."""
        return round((x - self._shift_x) / self._scale_x, 1), round((y - self._shift_y) / self._scale_y, 1)

    def box(self, left: int, top: int, width: int, height: int) -> tuple[float, float, float, float]:
        """Whole cells, from edge to edge."""
        x, y = self.frame_xy(left - 0.5, top - 0.5)
        right, bottom = self.frame_xy(left + width - 0.5, top + height - 0.5)
        return x + 0.5, y + 0.5, round(right - x, 1), round(bottom - y, 1)


def _regions_of_class(mask: NDArray[np.bool_], name: str, grid: _Grid, min_area_px: float) -> list[Region]:
    cells = mask.view(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(cells, connectivity=8)
    contours, hierarchy = cv2.findContours(cells, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    found = []
    for contour, (_, _, _, parent) in zip(contours, hierarchy[0] if len(contours) else [], strict=True):
        if parent >= 0:
            continue  # the border of a hole
        column, row = contour[0, 0].tolist()
        left, top, width, height, area = stats[labels[row, column]].tolist()
        area_px = area * grid.px_per_cell
        if area_px >= min_area_px:
            simple = cv2.approxPolyDP(contour, TOLERANCE_PX, closed=True)[:, 0].tolist()
            polygon = tuple(grid.frame_xy(x, y) for x, y in simple)
            found.append(Region(name, round(area_px), grid.box(left, top, width, height), polygon))
    return found
