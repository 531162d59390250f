"""A picture and its labels, drawn by the same calls so that they agree to the pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.sources.street.world import Color

Point: TypeAlias = tuple[float, float, float]  # x, y, z in metres
Pixel: TypeAlias = tuple[float, float]
Box: TypeAlias = tuple[float, float, float, float]  # left, top, right, bottom in pixels

NEAR_Z = 0.6
_SHIFT = 4  # fractional bits of the coordinates
_SCALE = 1 << _SHIFT
_MARGIN = 3  # pixels; a shape's edges are rounded by less
_LIMIT = 30_000.0  # pixels; OpenCV's fixed-point coordinates overflow not far above


class Canvas:
    """Draws polygons given in metres, far things first; `haze` and the light are applied to every colour.

    `pixels`, (h, w, 4) uint8, holds blue, green, red and the class, so that one call draws both.

    Args:
        size_wh: of the picture in pixels.
        camera: x, height and z of the camera in metres.
        horizon_px: the horizon's row.
        light: factors of blue, green and red.
        haze: colour that things fade into with distance.
    """

    def __init__(
        self,
        size_wh: tuple[int, int],
        camera: tuple[float, float, float],
        horizon_px: float,
        light: Color,
        haze: Color,
    ) -> None:
        self.width, self.height = size_wh
        self.pixels: NDArray[np.uint8] = np.empty((self.height, self.width, 4), np.uint8)
        self.camera_x, self.camera_height, self.camera_z = camera
        self.horizon_px = horizon_px
        self.focal_px = 0.95 * self.height
        self._light = light
        self._haze = haze
        self._clear_at, self._clear = math.inf, 0.0

    def color(self, base: Color, z: float, shade: float = 1.0) -> Color:
        """A colour as it looks at `z`: lit, shaded, and faded by the air between."""
        if z != self._clear_at:  # the parts of one thing mostly share it
            self._clear_at, self._clear = z, math.exp(-max(z - self.camera_z, 0.0) / 90.0)
        clear = self._clear
        light, haze, faded = self._light, self._haze, 1 - clear
        blue, green, red = base[0] * light[0] * shade, base[1] * light[1] * shade, base[2] * light[2] * shade
        return (
            (blue if blue < 255.0 else 255.0) * clear + haze[0] * faded,
            (green if green < 255.0 else 255.0) * clear + haze[1] * faded,
            (red if red < 255.0 else 255.0) * clear + haze[2] * faded,
        )

    def project(self, x: float, y: float, z: float) -> Pixel:
        """The pixel of a point in metres; a point behind the camera is moved to just before it."""
        ahead = z - self.camera_z
        scale = self.focal_px / (ahead if ahead > NEAR_Z else NEAR_Z)
        return (
            self.width / 2 + scale * (x - self.camera_x),
            self.horizon_px + scale * (self.camera_height - y),
        )

    def quad(self, corners: Sequence[Point], color: Color, label: int | None) -> None:
        """Fill a convex polygon given in metres."""
        self.polygon([self.project(*corner) for corner in corners], color, label)

    def upright(self, across: tuple[float, float], up: tuple[float, float], z: float, color: Color, label: int) -> None:
        """Fill a rectangle that faces the camera: from x to x, from y to y, at z."""
        (left, right), (bottom, top) = across, up
        self.quad([(left, bottom, z), (right, bottom, z), (right, top, z), (left, top, z)], color, label)

    def lengthwise(
        self, x: float, up: tuple[float, float], along: tuple[float, float], color: Color, label: int
    ) -> None:
        """Fill a rectangle along the street: at x, from y to y, from z to z."""
        (bottom, top), (near, far) = up, along
        self.quad([(x, bottom, near), (x, bottom, far), (x, top, far), (x, top, near)], color, label)

    def flat(self, across: tuple[float, float], along: tuple[float, float], color: Color, label: int | None) -> None:
        """Fill a rectangle on the ground: from x to x, from z to z."""
        (left, right), (near, far) = across, along
        self.quad([(left, 0, near), (right, 0, near), (right, 0, far), (left, 0, far)], color, label)

    def polygon(self, pixels: Sequence[Pixel], color: Color, label: int | None) -> None:
        """Fill a convex polygon given in pixels; `label` None leaves the labels (a shadow, a marking)."""
        xs, ys = zip(*pixels, strict=True)
        box = min(xs), min(ys), max(xs), max(ys)
        if self._is_outside(box):
            return
        kept = self._labels_in(box).copy() if label is None else None
        fixed = np.array([(_fixed(x), _fixed(y)) for x, y in pixels], np.int32)
        cv2.fillConvexPoly(self.pixels, fixed, (*color, label or 0), cv2.LINE_8, _SHIFT)
        if kept is not None:
            self._labels_in(box)[:] = kept

    def disc(self, center: Pixel, radii: tuple[float, float], color: Color, label: int | None) -> None:
        """Fill an ellipse with upright axes, in pixels."""
        (x, y), (across, up) = center, radii
        if across >= _LIMIT or up >= _LIMIT:
            return
        box = x - across, y - up, x + across, y + up
        if self._is_outside(box):
            return
        kept = self._labels_in(box).copy() if label is None else None
        middle = (_fixed(x), _fixed(y))
        axes = (max(_fixed(across), 1), max(_fixed(up), 1))
        cv2.ellipse(self.pixels, middle, axes, 0, 0, 360, (*color, label or 0), -1, cv2.LINE_8, _SHIFT)
        if kept is not None:
            self._labels_in(box)[:] = kept

    def scale(self, z: float) -> float:
        """Pixels a metre at `z`."""
        return self.focal_px / max(z - self.camera_z, NEAR_Z)

    def _is_outside(self, box: Box) -> bool:
        left, top, right, bottom = box
        return right < -_MARGIN or bottom < -_MARGIN or left > self.width + _MARGIN or top > self.height + _MARGIN

    def _labels_in(self, box: Box) -> NDArray[np.uint8]:
        """The labels that a shape in this box may touch, a view."""
        left, top = max(int(box[0]) - _MARGIN, 0), max(int(box[1]) - _MARGIN, 0)
        right, bottom = max(int(box[2]) + _MARGIN, 0), max(int(box[3]) + _MARGIN, 0)
        return self.pixels[top:bottom, left:right, 3]


def _fixed(pixel: float) -> int:
    if -_LIMIT < pixel < _LIMIT:
        return round(pixel * _SCALE)
    return round(_LIMIT if pixel > 0 else -_LIMIT) * _SCALE
