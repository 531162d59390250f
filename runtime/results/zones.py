"""Parts of a picture that a user has drawn, and what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.errors import ConfigurationError
from vidseg.runtime.frame import Segmentation
from vidseg.runtime.manifest import ClassSpec
from vidseg.runtime.results.regions import named_shares

Polygon = tuple[tuple[float, float], ...]

_SUBPIXEL_BITS = 8


@dataclass(frozen=True, slots=True)
class Zone:
    """A polygon on the pictures of a source.

    Attributes:
        name: for people and programs.
        polygon: its corners as shares of the frame's width and height, 0..1 each: it survives another resolution.

    Raises:
        ConfigurationError: fewer than three corners, one outside of the picture, or no area.
    """

    name: str
    polygon: Polygon

    def __post_init__(self) -> None:
        if len(self.polygon) < 3 or not all(0 <= value <= 1 for point in self.polygon for value in point):
            raise ConfigurationError(
                f"zone {self.name!r} is no polygon", f"{self.polygon}", "Three or more corners x, y, from 0 to 1 each."
            )
        if area_of(self.polygon) < 1e-6:
            raise ConfigurationError(f"zone {self.name!r} has no area", f"{self.polygon}")

    def shares(self, segmentation: Segmentation, classes: Sequence[ClassSpec]) -> dict[str, float]:
        """Share of each class of the zone's pixels, by name; what is unknown is missing from the sum."""
        height, width = segmentation.frame.image.shape[:2]
        affine = tuple(map(tuple, segmentation.grid_from_frame.tolist()))
        mask = grid_mask(self.polygon, (width, height), affine, segmentation.class_map.shape)
        return named_shares(segmentation.class_map[mask], classes)


def area_of(polygon: Polygon) -> float:
    """Area of a polygon, without a sign (the shoelace formula)."""
    x, y = np.array(polygon).T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


@lru_cache(maxsize=256)
def grid_mask(
    polygon: Polygon,
    frame_wh: tuple[int, int],
    grid_from_frame: tuple[tuple[float, ...], ...],
    grid_shape: tuple[int, int],
) -> NDArray[np.bool_]:
    """Which cells of a class map have their centre in a polygon, or near its border; (h, w) bool, read-only.

    Args:
        polygon: see `Zone`.
        frame_wh: of the frame.
        grid_from_frame: of the result.
        grid_shape: (h, w) of the class map.
    """
    (scale_x, _, shift_x), (_, scale_y, shift_y) = grid_from_frame
    corners = np.array(polygon) * frame_wh - 0.5  # edges of the picture lie half a pixel beside the outer centres
    corners = corners * (scale_x, scale_y) + (shift_x, shift_y)
    cells = np.zeros(grid_shape, np.uint8)
    fixed = np.rint(corners * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    cv2.fillPoly(cells, [fixed], 1, shift=_SUBPIXEL_BITS)
    mask = cells.astype(bool)
    mask.flags.writeable = False
    return mask
