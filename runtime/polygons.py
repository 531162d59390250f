"""Polygons that a user draws on a camera's picture, and the pixels of a result that lie in them."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.errors import ConfigurationError
from vidseg.runtime.frame import Segmentation

Polygon: TypeAlias = tuple[tuple[float, float], ...]
"""Corners x, y as shares of a frame's width and height, 0..1 each: they survive another resolution."""

MIN_AREA = 1e-6

_SUBPIXEL_BITS = 8


def check_polygon(polygon: Polygon, name: str) -> None:
    """Find what makes a polygon none.

    Args:
        polygon: three or more corners.
        name: of it, for the message.

    Raises:
        ConfigurationError: too few corners, one outside of the picture, or no area.
    """
    if len(polygon) < 3 or not all(len(point) == 2 and 0 <= min(point) <= max(point) <= 1 for point in polygon):
        mend = "Three or more corners x, y, from 0 to 1 each."
        raise ConfigurationError(f"{name} is no polygon", f"{polygon}", mend)
    if area_of(polygon) < MIN_AREA:
        raise ConfigurationError(f"{name} has no area", f"{polygon}")


def area_of(polygon: Polygon) -> float:
    """Area of a polygon as a share of the picture (the shoelace formula)."""
    x, y = np.array(polygon).T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def pixels_in(polygon: Polygon, segmentation: Segmentation) -> NDArray[np.bool_]:
    """Which pixels of a result's class map have their centre in a polygon, or near its border; (h, w), read-only."""
    height, width = segmentation.frame.image.shape[:2]
    affine = tuple(map(tuple, segmentation.grid_from_frame.tolist()))
    return _mask(polygon, (width, height), affine, segmentation.class_map.shape)


@lru_cache(maxsize=256)
def _mask(
    polygon: Polygon,
    frame_wh: tuple[int, int],
    grid_from_frame: tuple[tuple[float, ...], ...],
    grid_shape: tuple[int, int],
) -> NDArray[np.bool_]:
    (scale_x, _, shift_x), (_, scale_y, shift_y) = grid_from_frame
    corners = np.array(polygon) * frame_wh - 0.5  # edges of the picture lie half a pixel beside the outer centres
    corners = corners * (scale_x, scale_y) + (shift_x, shift_y)
    cells = np.zeros(grid_shape, np.uint8)
    fixed = np.rint(corners * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    cv2.fillPoly(cells, [fixed], 1, shift=_SUBPIXEL_BITS)
    mask = cells.astype(bool)
    mask.flags.writeable = False
    return mask
