"""Text in pictures: lines in the upper left corner, and the legend in the lower left one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from vidseg.runtime.frame import Image
from vidseg.runtime.manifest import ClassSpec

FONT = cv2.FONT_HERSHEY_SIMPLEX
CAPITAL_PX = 21.0
"""Height of a capital of FONT at scale 1, in pixels."""

MIN_CAPITAL_PX = 8
"""Below it letters cannot be told apart (looked at)."""

WHITE = (255, 255, 255)
BACKING = 0.35
"""Brightness that is left of the picture behind text: white letters are readable on white."""

BOTTOM_SHARE = 1 / 16
"""Share of the height that stays clear at the bottom: time codes stand there, the rendered street's among them."""

HUD_SHARE = 0.4
"""Share of the height that the lines may take; the rest is the legend's."""


def draw_hud(picture: Image, lines: Sequence[str]) -> int:
    """Write lines into the upper left corner, broken at blanks where they are too long, as many as there is room for.

    Args:
        picture: (H, W, 3) uint8 BGR, drawn into.
        lines: one or more.

    Returns:
        The row below the text.
    """
    capital = _capital_px(picture)
    room = max(1, round(picture.shape[0] * HUD_SHARE) // _pitch(capital))
    broken = [part for line in lines for part in _broken(line, capital, picture.shape[1] - 2 * capital)][:room]
    width = max(_text_width(line, capital) for line in broken) + 2 * capital
    bottom: int = min(capital + len(broken) * _pitch(capital), picture.shape[0])
    backed = picture[:bottom, :width]
    backed[:] = cv2.convertScaleAbs(backed, alpha=BACKING)
    for number, line in enumerate(broken):
        _write(picture, line, capital, capital + number * _pitch(capital), capital)
    return bottom


def draw_legend(picture: Image, classes: Sequence[ClassSpec], top: int) -> None:
    """Name classes beside a patch of their colour, in the lower left corner below row `top`.

    Where not all fit, as many as do are named and the rest is counted; where none fits, nothing is drawn.

    Args:
        picture: (H, W, 3) uint8 BGR, drawn into.
        classes: in the order in which they are named.
        top: row above which nothing may be drawn.
    """
    height, width = picture.shape[:2]
    capital = _capital_px(picture)
    bottom = height - round(height * BOTTOM_SHARE)
    rows = (bottom - max(top, round(height * HUD_SHARE)) - capital) // _pitch(capital)
    if not classes or rows < 1:
        return
    legend = _legend_of(tuple(spec.name for spec in classes), capital, rows, width)
    if legend is None:
        return
    panel_height, panel_width = legend.text.shape[:2]
    backed = picture[bottom - panel_height : bottom, :panel_width]
    backed[:] = cv2.addWeighted(backed, BACKING, legend.text, 1, 0)
    for spec, (x, y) in zip(classes, legend.patches_xy, strict=False):
        cv2.rectangle(backed, (x, y), (x + capital, y + capital), spec.color_rgb[::-1], cv2.FILLED)


@dataclass(frozen=True, slots=True, eq=False)
class _Legend:
    text: Image  # white on black
    patches_xy: tuple[tuple[int, int], ...]  # upper left corners within `text`, of the classes that are named


@lru_cache(maxsize=64)  # writing takes 0.02 ms a name in OpenCV 5, 0.1 ms in 4; the same classes are there for seconds
def _legend_of(names: tuple[str, ...], capital: int, max_rows: int, max_width: int) -> _Legend | None:
    column_width = 3 * capital + max(_text_width(name, capital) for name in names)
    max_columns = (max_width - capital) // column_width
    if max_columns < 1:
        return None
    rows = min(len(names), max_rows)
    columns = min(-(-len(names) // rows), max_columns)
    text = np.zeros((rows * _pitch(capital) + capital, columns * column_width + capital, 3), np.uint8)
    places = [
        (capital + column * column_width, capital + row * _pitch(capital))
        for column in range(columns)
        for row in range(rows)
    ][: len(names)]
    left_out = len(names) - len(places)
    if left_out:
        *places, (x, y) = places
        _write(text, f"+{left_out + 1}", x, y, capital)
    for name, (x, y) in zip(names, places, strict=False):
        _write(text, name, x + 2 * capital, y, capital)
    return _Legend(text, tuple(places))


def _capital_px(picture: Image) -> int:
    smaller: int = min(picture.shape[:2])
    return max(MIN_CAPITAL_PX, round(smaller / 50))


def _pitch(capital: int) -> int:
    return capital + round(capital * 0.8)


def _write(picture: Image, text: str, x: int, y: int, capital: int) -> None:
    """Write text whose capitals reach from row `y` down to `y + capital`."""
    thickness = max(1, round(capital / 9))
    cv2.putText(picture, text, (x, y + capital), FONT, capital / CAPITAL_PX, WHITE, thickness, cv2.LINE_AA)


@lru_cache(maxsize=1024)
def _text_width(text: str, capital: int) -> int:
    (width, _), _ = cv2.getTextSize(text, FONT, capital / CAPITAL_PX, max(1, round(capital / 9)))
    return width


def _broken(line: str, capital: int, width: int) -> list[str]:
    if _text_width(line, capital) <= width:
        return [line]
    parts: list[str] = []
    for word in line.split():
        if parts and _text_width(f"{parts[-1]} {word}", capital) <= width:
            parts[-1] += f" {word}"
        else:
            parts.append(word)
    return parts
