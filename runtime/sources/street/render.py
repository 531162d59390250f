"""The rendered street: picture and exact labels of any frame, from a seed and a time."""

from __future__ import annotations

import itertools
import math

import cv2
import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.frame import ClassMap, Image
from vidseg.runtime.sources.street.canvas import Canvas
from vidseg.runtime.sources.street.classes import BUILDING, PAVEMENT, ROAD, SKY
from vidseg.runtime.sources.street.things import depth_order, draw_thing
from vidseg.runtime.sources.street.world import FACADE_X, ROAD_HALF_WIDTH, VIEW_AHEAD, Color, Moment, World

NOISE_LEVELS = 4.0
"""Standard deviation of the sensor's noise, in grey levels."""

_TILE = 256  # side of the ground's texture, a power of two
_TEXELS_PER_M = 14.0


class Street:
    """A street seen from a moving car.

    Args:
        seed: of everything in it: the same seed, index and time give the same pixels.
        size_wh: of the pictures, in pixels; at least 64x48.
        noise: with sensor noise.
    """

    def __init__(self, seed: int, size_wh: tuple[int, int], *, noise: bool = True) -> None:
        self._world = World(seed)
        self._size_wh = size_wh
        rng = np.random.default_rng(seed)
        texture = cv2.GaussianBlur(rng.normal(0, 1, (_TILE, _TILE)).astype(np.float32), (0, 0), 0.8)
        self._texture = np.clip(128 + texture / texture.std() * 6, 0, 255).astype(np.uint8)
        width, height = size_wh
        grain = rng.normal(0, NOISE_LEVELS, (height + 64, width + 64, 3)) + 16
        self._grain = np.clip(grain.round(), 0, 255).astype(np.uint8) if noise else None
        clouds = rng.normal(0, 1, (14, 10)).astype(np.float32)
        smooth = cv2.resize(clouds, (2 * width, height), interpolation=cv2.INTER_CUBIC)
        self._clouds = np.clip(smooth * 55 - 12, 0, 80).astype(np.uint8)

    def render(self, index: int, time_s: float) -> tuple[Image, ClassMap]:
        """Picture, (h, w, 3) uint8 BGR, and labels, (h, w) uint8, of frame `index` at `time_s` seconds of driving.

        `index` picks the noise only. The labels are exact: every shape is filled in both with the same coordinates,
        before blur and noise.
        """
        width, height = self._size_wh
        moment = self._world.at(time_s)
        light, haze, zenith = _light_of(moment)
        horizon_px = height * (0.46 + moment.pitch)
        camera = (moment.camera_x, moment.camera_height, moment.camera_z)
        canvas = Canvas(self._size_wh, camera, horizon_px, light, haze)
        self._draw_sky(canvas, zenith, haze, time_s)
        self._draw_ground(canvas)
        for thing in sorted(moment.things, key=depth_order, reverse=True):
            draw_thing(canvas, thing)
        sharp = cv2.cvtColor(canvas.pixels, cv2.COLOR_BGRA2BGR)
        image = cv2.GaussianBlur(sharp, (3, 3), 0.65 * max(height / 480, 0.75))
        if self._grain is not None:
            top, left = (index * 37) % 64, (index * 23) % 64
            grain = self._grain[top : top + height, left : left + width]
            image = cv2.addWeighted(image, 1.0, grain, 1.0, -16.0)
        return image.astype(np.uint8, copy=False), canvas.pixels[..., 3].copy()

    def _draw_sky(self, canvas: Canvas, zenith: Color, haze: Color, time_s: float) -> None:
        rows = min(max(math.ceil(canvas.horizon_px) + 1, 1), canvas.height)
        share = np.linspace(0, 1, rows)[:, None] ** 1.5
        gradient = (1 - share) * np.asarray(zenith) + share * np.asarray(haze)
        column = np.full((rows, 1, 4), SKY, np.uint8)
        column[:, 0, :3] = gradient.clip(0, 255)
        sky = cv2.repeat(column, 1, canvas.width)
        shift = int(time_s * 3) % canvas.width
        clouds = self._clouds[:rows, shift : shift + canvas.width]
        fade = (clouds * (1 - share)).astype(np.uint8)
        canvas.pixels[:rows] = cv2.add(sky, cv2.merge([fade, fade, fade, np.zeros_like(fade)]))

    def _draw_ground(self, canvas: Canvas) -> None:
        first = min(max(math.ceil(canvas.horizon_px) + 1, 0), canvas.height)
        rows = np.arange(first, canvas.height)
        depth = canvas.focal_px * canvas.camera_height / np.maximum(rows - canvas.horizon_px, 0.5)
        clear = np.exp(-depth / 90.0)[:, None]
        far = np.asarray(canvas.color((0, 0, 0), 1e9))
        paving = np.asarray(canvas.color((148, 152, 156), canvas.camera_z))
        column = np.full((len(rows), 1, 4), PAVEMENT, np.uint8)
        column[:, 0, :3] = paving * clear + far * (1 - clear)
        canvas.pixels[first:] = cv2.repeat(column, 1, canvas.width)
        self._draw_strip(canvas, -ROAD_HALF_WIDTH - 0.18, ROAD_HALF_WIDTH + 0.18, (172, 176, 178), PAVEMENT)
        self._draw_strip(canvas, -ROAD_HALF_WIDTH, ROAD_HALF_WIDTH, (84, 82, 80), ROAD)
        self._draw_markings(canvas)
        self._texture_ground(canvas, first, depth)
        haze = canvas.color((0, 0, 0), 1e9)
        skyline = (haze[0] * 0.93, haze[1] * 0.93, haze[2] * 0.93)
        edge = canvas.camera_z + VIEW_AHEAD
        for side in (-1, 1):
            canvas.upright((side * FACADE_X, side * 90), (0, 9), edge, skyline, BUILDING)
        canvas.upright((-60, 60), (0, 26), canvas.camera_z + VIEW_AHEAD * 4, skyline, BUILDING)

    def _draw_strip(self, canvas: Canvas, left: float, right: float, color: Color, label: int) -> None:
        edges = [canvas.camera_z + step for step in (0.6, 4, 8, 14, 22, 34, 50, 75, 120, 600)]
        for near, far in itertools.pairwise(edges):
            lit = canvas.color(color, (near + far) / 2 if far < edges[-1] else near)
            canvas.flat((left, right), (near, far), lit, label)

    def _draw_markings(self, canvas: Canvas) -> None:
        first = math.floor(canvas.camera_z / 9.0) * 9.0
        for number in range(12):
            near = max(first + 9.0 * number, canvas.camera_z + 0.6)
            far = first + 9.0 * number + 3.6
            if far > near:
                paint = canvas.color((205, 210, 212), near)
                canvas.flat((-0.09, 0.09), (near, far), paint, None)

    def _texture_ground(self, canvas: Canvas, first: int, depth: NDArray[np.float64]) -> None:
        along = ((canvas.camera_z + depth) * _TEXELS_PER_M).astype(np.int64) & (_TILE - 1)
        fade = np.exp(-depth / 14.0)[:, None].astype(np.float32)
        faded = (128 + (self._texture[along].astype(np.float32) - 128) * fade).astype(np.uint8)
        per_px = (depth / canvas.focal_px * _TEXELS_PER_M).astype(np.float32)
        columns = np.arange(canvas.width, dtype=np.float32) - canvas.width / 2
        across = (columns * per_px[:, None] + np.float32(canvas.camera_x * _TEXELS_PER_M)).astype(np.int32)
        across &= _TILE - 1
        across += (np.arange(len(depth), dtype=np.int32) * _TILE)[:, None]
        grain = faded.ravel().take(across)
        unchanged = np.full_like(grain, 128)
        ground = canvas.pixels[first:]
        cv2.addWeighted(ground, 1.0, cv2.merge([grain, grain, grain, unchanged]), 1.0, -128.0, dst=ground)


def _light_of(moment: Moment) -> tuple[Color, Color, Color]:
    """Light, haze and zenith from the time of day: noon is white and blue, dusk warm and dim."""
    day = moment.daylight
    strength = (0.72 + 0.42 * day) * moment.exposure
    light = (strength * (0.80 + 0.22 * day), strength * (0.93 + 0.07 * day), strength * (1.10 - 0.08 * day))
    haze = (
        (165 + 75 * day) * moment.exposure,
        (182 + 48 * day) * moment.exposure,
        (222 + 2 * day) * moment.exposure,
    )
    zenith = (
        (150 + 75 * day) * moment.exposure,
        (105 + 65 * day) * moment.exposure,
        (100 + 10 * day) * moment.exposure,
    )
    return light, haze, zenith
