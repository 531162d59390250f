"""What of a camera's picture counts: a region of interest, and parts that are to be ignored."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vidseg.runtime.errors import ConfigurationError
from vidseg.runtime.frame import UNKNOWN, Image, Segmentation
from vidseg.runtime.polygons import Polygon, check_polygon, pixels_in


@dataclass(frozen=True, slots=True)
class View:
    """Parts of a picture, as shares of its width and height.

    Attributes:
        roi: left, top, width and height of the region that the model looks at, 0..1 each; None: the whole picture.
        ignore: polygons in which nothing is known, whatever the model says.

    Raises:
        ConfigurationError: a region outside of the picture, or a polygon that is none.
    """

    roi: tuple[float, float, float, float] | None = None
    ignore: tuple[Polygon, ...] = ()

    def __post_init__(self) -> None:
        if self.roi is not None:
            left, top, width, height = self.roi
            if not (min(left, top) >= 0 < min(width, height) and left + width <= 1 and top + height <= 1):
                mend = "Left, top, width and height are shares of the picture, from 0 to 1."
                raise ConfigurationError("a region of interest lies outside of the picture", f"{self.roi}", mend)
        for number, polygon in enumerate(self.ignore):
            check_polygon(polygon, f"polygon {number} that is to be ignored")

    def origin_xy(self, image: Image) -> tuple[int, int]:
        """Where the region begins on a picture, in pixels."""
        left, top, _, _ = self._box(image)
        return left, top

    def region(self, image: Image) -> Image:
        """The region of a picture, (H, W, 3) uint8 to (h, w, 3), C-contiguous; the picture itself where it is all."""
        if self.roi is None:
            return image
        left, top, width, height = self._box(image)
        return np.ascontiguousarray(image[top : top + height, left : left + width])

    def without_ignored(self, segmentation: Segmentation) -> Segmentation:
        """The result with 255 in what is to be ignored. What the engine has drawn shows too much, and is left out."""
        if not self.ignore:
            return segmentation
        class_map = segmentation.class_map.copy()
        for polygon in self.ignore:
            class_map[pixels_in(polygon, segmentation)] = UNKNOWN
        return replace(segmentation, class_map=class_map, blended=None)

    def _box(self, image: Image) -> tuple[int, int, int, int]:
        height, width = image.shape[:2]
        if self.roi is None:
            return 0, 0, width, height
        left, top = round(self.roi[0] * width), round(self.roi[1] * height)
        right, bottom = round((self.roi[0] + self.roi[2]) * width), round((self.roi[1] + self.roi[3]) * height)
        left, top = min(left, width - 1), min(top, height - 1)
        return left, top, max(right - left, 1), max(bottom - top, 1)


WHOLE = View()
"""All of a picture."""
