"""`Overlay`: a result drawn over its frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.captions import draw_hud, draw_legend
from vidseg.runtime.errors import UsageError
from vidseg.runtime.frame import UNKNOWN, ClassMap, Image, Segmentation
from vidseg.runtime.manifest import ClassSpec
from vidseg.runtime.palette import distinct_colors

View: TypeAlias = Literal["over", "mask", "side-by-side"]


@dataclass(frozen=True, slots=True)
class OverlayStyle:
    """What an overlay looks like.

    Attributes:
        alpha: share of a class's colour, 0 (frame only) to 1 (colour only), in steps of 1/256.
        legend: name the classes that are present.
        outline: draw the border of each region in its full colour.
        view: the colours over the frame; the colours alone, on black; or frame and overlay side by side.
        hidden: names of classes that are not drawn.
        colors: as the bundle has them, or others that stay apart for colour-blind people too.
    """

    alpha: float = 0.5
    legend: bool = True
    outline: bool = False
    view: View = "over"
    hidden: tuple[str, ...] = ()
    colors: Literal["bundle", "distinct"] = "bundle"

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise UsageError("the overlay's alpha is a share", f"{self.alpha:g}", "Give 0 to 1.")


class Overlay:
    """Colours the classes over the frame, names those that are present, and writes lines of text.

    With a = round(256 alpha), each channel is (frame * (256 - a) + colour * a + 128) >> 8. Pixels that are unknown or
    hidden, or that the model did not see, stay the frame's. Each pixel has the class of `Segmentation.at_frame_size()`.
    An outline is every pixel of a visible class that has another class, or none, within `outline_px` rows and columns.

    Args:
        classes: names and colours; a class's id is its place.
        style: see `OverlayStyle`.

    Raises:
        UsageError: a class to hide that is none.
    """

    def __init__(self, classes: Sequence[ClassSpec], style: OverlayStyle | None = None) -> None:
        self._style = style = style or OverlayStyle()
        unknown = sorted(set(style.hidden) - {spec.name for spec in classes})
        if unknown:
            names = ", ".join(spec.name for spec in classes)
            raise UsageError(f"there is no class {unknown[0]!r} to hide", "", f"The classes are {names}.")
        self._classes = tuple(classes)
        if style.colors == "distinct":
            colors = distinct_colors([None] * len(classes))
            self._classes = tuple(
                ClassSpec(name=spec.name, color_rgb=color) for spec, color in zip(classes, colors, strict=True)
            )
        self._alpha_256 = round((1 if style.view == "mask" else style.alpha) * 256)
        self._palette_bgr = np.zeros((256, 1, 3), np.uint8)
        self._visible = np.full(256, UNKNOWN, np.uint8)
        for class_id, spec in enumerate(self._classes):
            self._palette_bgr[class_id] = spec.color_rgb[::-1]
            if spec.name not in style.hidden:
                self._visible[class_id] = class_id

    def draw(self, segmentation: Segmentation, hud: Sequence[str] = (), blended: Image | None = None) -> Image:
        """A new picture, (H, W, 3) uint8 BGR at the frame's size, twice as wide for `side-by-side`.

        Args:
            segmentation: what to draw.
            hud: lines of text for the upper left corner.
            blended: the colours over the frame, where an engine that was given this style has drawn them already.
        """
        if self._style.hidden:
            segmentation = replace(segmentation, class_map=self._visible[segmentation.class_map])
        if blended is None:
            base = segmentation.frame.image
            picture = self._blend(segmentation, np.zeros_like(base) if self._style.view == "mask" else base)
        else:
            picture = blended.copy()
        if self._style.outline:
            self._draw_outline(picture, segmentation.at_frame_size())
        bottom_of_hud = draw_hud(picture, hud) if hud else 0
        if self._style.legend:
            counts = cv2.calcHist([segmentation.class_map], [0], None, [256], [0, 256]).ravel()
            present = [spec for spec, count in zip(self._classes, counts.tolist(), strict=False) if count]
            draw_legend(picture, present, bottom_of_hud)
        if self._style.view == "side-by-side":
            return np.hstack([segmentation.frame.image, picture])
        return picture

    def _draw_outline(self, picture: Image, class_map: ClassMap) -> None:
        side = 2 * outline_px(class_map.shape) + 1
        window = np.ones((side, side), np.uint8)
        # Ids that differ from the largest or the smallest around them; the border of the picture is none of a region.
        mixed = cv2.compare(cv2.dilate(class_map, window), cv2.erode(class_map, window), cv2.CMP_NE)
        mixed[class_map >= len(self._classes)] = 0
        cv2.copyTo(cv2.applyColorMap(class_map, self._palette_bgr), mixed, picture)

    def _blend(self, segmentation: Segmentation, image: Image) -> Image:
        grid_height, grid_width = segmentation.class_map.shape
        (scale_x, _, shift_x), (_, scale_y, shift_y) = segmentation.grid_from_frame.tolist()
        left, columns = _nearest(image.shape[1], grid_width, scale_x, shift_x)
        top, rows = _nearest(image.shape[0], grid_height, scale_y, shift_y)
        # Columns before rows, colours in between: the costly steps work on the few rows of the grid, the last one
        # copies whole rows. From 480x360 to 1280x720 on one core: 0.3 + 0.5 + 0.1 ms, and 0.7 ms for the blend.
        wide = segmentation.class_map.take(columns, axis=1)
        seen = np.s_[top : top + len(rows), left : left + len(columns)]
        blended = self._blend_classes(image[seen], wide, rows)
        if blended.shape == image.shape:
            return blended
        picture: Image = image.copy()
        picture[seen] = blended
        return picture

    def _blend_classes(self, image: Image, wide: ClassMap, rows: NDArray[np.intp]) -> Image:
        if not image.size:  # a tiny frame, of which the model saw no pixel's centre
            return image
        colors = cv2.applyColorMap(wide, self._palette_bgr).take(rows, axis=0)
        unknown = wide >= len(self._classes)
        if unknown.any():
            cv2.copyTo(image, unknown.take(rows, axis=0).view(np.uint8), colors)
        share = self._alpha_256 / 256
        # All products and sums are exact in the float32 that OpenCV computes in, and 1/512 keeps them off the ties: the
        # result is that of the integer formula whatever the rounding mode.
        blended: Image = cv2.addWeighted(image, 1 - share, colors, share, 1 / 512).astype(np.uint8, copy=False)
        return blended


def outline_px(size_hw: tuple[int, ...]) -> int:
    """How far an outline reaches into its region: one pixel below 720 rows or columns, whichever are fewer."""
    return max(1, round(min(size_hw) / 480))


def _nearest(frame_size: int, grid_size: int, scale: float, shift: float) -> tuple[int, NDArray[np.intp]]:
    """The first pixel of a frame's row or column that the grid covers, and the grid's pixel for it and those behind."""
    nearest = np.rint(np.arange(frame_size) * scale + shift).astype(np.intp)
    first, end = np.searchsorted(nearest, [0, grid_size]).tolist()
    return first, nearest[first:end]
