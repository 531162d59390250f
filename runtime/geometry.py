"""How a frame of any size is laid on a model's input, and how to get back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.frame import ClassMap, Image

Fit: TypeAlias = Literal["stretch", "letterbox", "crop"]

PADDING_VALUE = 114
"""Grey level of letterbox padding, all channels."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a frame lies on a model's input.

    Attributes:
        frame_wh: size of the frame, in pixels.
        input_wh: size of the model's input, in pixels.
        scaled_wh: size of the whole frame after scaling; within the input for
            `letterbox`, at least as large for `crop`.
        offset_xy: where the scaled frame's top left corner lies on the input; negative for `crop`.
    """

    frame_wh: tuple[int, int]
    input_wh: tuple[int, int]
    scaled_wh: tuple[int, int]
    offset_xy: tuple[int, int]

    def input_from_frame(self, image: Image) -> Image:
        """Scale (bilinear) and place a frame: (H, W, 3) uint8 to (h, w, 3) uint8, C-contiguous.

        The result is the frame itself where nothing has to be done.
        """
        scaled = image if self.scaled_wh == self.frame_wh else _resized(image, self.scaled_wh)
        if self.scaled_wh == self.input_wh:
            return np.ascontiguousarray(scaled)
        (width, height), (left, top) = self.input_wh, self.offset_xy
        if self.scaled_wh[0] >= width and self.scaled_wh[1] >= height:  # crop
            return np.ascontiguousarray(scaled[-top : height - top, -left : width - left])
        canvas = np.full((height, width, 3), PADDING_VALUE, np.uint8)
        canvas[top : top + self.scaled_wh[1], left : left + self.scaled_wh[0]] = scaled
        return canvas

    def without_padding(self, class_map: ClassMap) -> ClassMap:
        """Cut the part that shows the frame out of an output grid of any size, (h, w) uint8; a view."""
        columns, rows = self.visible_span(class_map.shape[1], 0), self.visible_span(class_map.shape[0], 1)
        return class_map[rows[0] : rows[1], columns[0] : columns[1]]

    def grid_from_frame(self, grid_wh: tuple[int, int]) -> NDArray[np.float64]:
        """The (2, 3) affine from a frame's pixels to those of `without_padding` of a grid of `grid_wh`."""
        affine = np.zeros((2, 3))
        for axis in (0, 1):
            grid_from_input = grid_wh[axis] / self.input_wh[axis]
            scale = self.scaled_wh[axis] / self.frame_wh[axis] * grid_from_input
            edge = self.offset_xy[axis] * grid_from_input - self.visible_span(grid_wh[axis], axis)[0]
            affine[axis, axis] = scale
            affine[axis, 2] = (scale - 1) / 2 + edge  # pixel centres at whole numbers
        return affine

    def visible_span(self, grid_size: int, axis: int) -> tuple[int, int]:
        """The part of an output grid's columns (axis 0) or rows (axis 1) that shows the frame: first and end."""
        scale = grid_size / self.input_wh[axis]
        first = round(max(self.offset_xy[axis], 0) * scale)
        last = round(min(self.offset_xy[axis] + self.scaled_wh[axis], self.input_wh[axis]) * scale)
        return first, max(last, first + 1)


def placement_of(frame_wh: tuple[int, int], input_wh: tuple[int, int], fit: Fit) -> Placement:
    """Lay a frame on an input.

    `stretch` ignores the aspect ratio, `letterbox` shows the whole frame on a grey border, `crop` fills the input
    and cuts what is over on two sides.
    """
    if fit == "stretch":
        return Placement(frame_wh, input_wh, input_wh, (0, 0))
    ratios = [size / frame for size, frame in zip(input_wh, frame_wh, strict=True)]
    scale = min(ratios) if fit == "letterbox" else max(ratios)
    width, height = (
        input_wh[axis] if ratios[axis] == scale else max(1, round(frame_wh[axis] * scale)) for axis in (0, 1)
    )
    offset = ((input_wh[0] - width) // 2, (input_wh[1] - height) // 2)
    return Placement(frame_wh, input_wh, (width, height), offset)


def _resized(image: Image, size_wh: tuple[int, int]) -> Image:
    resized: Image = cv2.resize(image, size_wh, interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
    return resized
