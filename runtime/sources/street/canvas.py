"""A picture and its labels, drawn by the same calls so that they agree to the pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import cv2
import numpy as np

from vidseg.runtime.frame import ClassMap, Image
from vidseg.runtime.sources.street.world import Color

Point: TypeAlias = tuple[float, float, float]  # x, y, z in metres
Pixel: TypeAlias = tuple[float, float]

NEAR_Z = 0.6
_SHIFT = 4  # fractional bits of the coordinates
_SCALE = 1 << _SHIFT
_LIMIT = 30_000.0  # pixels; OpenCV's fixed-point coordinates overflow not far above


class Canvas:
    """Draws polygons given in metres, far things first; `haze` and the light are applied to every colour.

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
        self.image: Image = np.empty((self.height, self.width, 3), np.uint8)
        self.labels: ClassMap = np.empty((self.height, self.width), np.uint8)
        self.camera_x, self.camera_height, self.camera_z = camera
        self.horizon_px = horizon_px
        self.focal_px = 0.95 * self.height
        self._light = light
        self._haze = haze

    def color(self, base: Color, z: float, shade: float = 1.0) -> Color:
        """A colour as it looks at `z`: lit, shaded, and faded by the air between."""
        clear = math.exp(-max(z - self.camera_z, 0.0) / 90.0)
        blue, green, red = self._light
        haze = self._haze
        return (
            min(base[0] * blue * shade, 255.0) * clear + haze[0] * (1 - clear),
            min(base[1] * green * shade, 255.0) * clear + haze[1] * (1 - clear),
            min(base[2] * red * shade, 255.0) * clear + haze[2] * (1 - clear),
        )

    def project(self, x: float, y: float, z: float) -> Pixel:
        """The pixel of a point in metres; a point behind the camera is moved to just before it."""
        scale = self.focal_px / max(z - self.camera_z, NEAR_Z)
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
        fixed = np.array([(_fixed(x), _fixed(y)) for x, y in pixels], np.int32)
        cv2.fillConvexPoly(self.image, fixed, color, cv2.LINE_8, _SHIFT)
        if label is not None:
            cv2.fillConvexPoly(self.labels, fixed, label, cv2.LINE_8, _SHIFT)

    def disc(self, center: Pixel, radii: tuple[float, float], color: Color, label: int | None) -> None:
        """Fill an ellipse with upright axes, in pixels."""
        if not (-_LIMIT < center[0] < _LIMIT and -_LIMIT < center[1] < _LIMIT and max(radii) < _LIMIT):
            return
        middle = (_fixed(center[0]), _fixed(center[1]))
        axes = (max(_fixed(radii[0]), 1), max(_fixed(radii[1]), 1))
        cv2.ellipse(self.image, middle, axes, 0, 0, 360, color, -1, cv2.LINE_8, _SHIFT)
        if label is not None:
            cv2.ellipse(self.labels, middle, axes, 0, 0, 360, label, -1, cv2.LINE_8, _SHIFT)

    def scale(self, z: float) -> float:
        """Pixels a metre at `z`."""
        return self.focal_px / max(z - self.camera_z, NEAR_Z)


def _fixed(pixel: float) -> int:
    return round(min(max(pixel, -_LIMIT), _LIMIT) * _SCALE)
