"""Colours that stay apart, for every kind of eye."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Color: TypeAlias = tuple[int, int, int]  # red, green, blue, 0..255 each

VISIONS: dict[str, NDArray[np.float64]] = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
"""What an eye makes of linear red, green and blue. Source: Machado, Oliveira, Fernandes, "A physiologically-based model
for simulation of color vision deficiency", 2009, severity 1."""

LEVELS = (30, 62, 94, 126, 158, 190, 222, 255)
"""Of each channel, of the colours to choose from: the darkest vanish in night pictures."""


def color_from_hex(digits: str) -> Color:
    """`804080` to (128, 64, 128)."""
    red, green, blue = bytes.fromhex(digits)
    return red, green, blue


def distinct_colors(colors: Sequence[Color | None]) -> list[Color]:
    """Fill the gaps in a list of colours: each with that which is farthest from all before, for the worst of `VISIONS`.

    The same list gives the same colours. Distance is the Euclidean one in CIELAB.
    """
    choice, seen = _choice()
    taken = [color for color in colors if color is not None] or [(0, 0, 0)]
    distance = np.full(len(choice), np.inf)
    for given in taken:
        distance = np.minimum(distance, _distance(seen, _seen(np.array([given], np.uint8))))
    filled: list[Color] = []
    for color in colors:
        if color is not None:
            filled.append(color)
            continue
        farthest = int(distance.argmax())
        red, green, blue = choice[farthest].tolist()
        filled.append((red, green, blue))
        distance = np.minimum(distance, _distance(seen, seen[:, farthest : farthest + 1]))
    return filled


def color_distance(first: Color, second: Color) -> float:
    """How far apart two colours are for the worst of `VISIONS`, in CIELAB; 2 can just be told apart side by side."""
    return float(_distance(_seen(np.array([first], np.uint8)), _seen(np.array([second], np.uint8)))[0])


def _distance(some: NDArray[np.float64], one: NDArray[np.float64]) -> NDArray[np.float64]:
    nearest: NDArray[np.float64] = np.linalg.norm(some - one, axis=2).min(axis=0)
    return nearest


@cache
def _choice() -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    levels = np.array(LEVELS, np.uint8)
    colors = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    return colors, _seen(colors)


def _seen(colors_rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(visions, n, 3) CIELAB of (n, 3) sRGB."""
    share = colors_rgb / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)  # IEC 61966-2-1
    lab = []
    for matrix in VISIONS.values():
        seen = (linear @ matrix.T).clip(0, 1)
        encoded = np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)
        lab.append(cv2.cvtColor(encoded[None].astype(np.float32), cv2.COLOR_RGB2LAB)[0])
    return np.stack(lab).astype(np.float64)
