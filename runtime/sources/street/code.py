"""Frame number and capture time as blocks of black and white along a picture's bottom edge.

A test reads them back from whatever comes out of the pipeline, and so knows which frame it sees and how old it truly
is. The layout is in shares of the picture, so that it survives scaling; blocks are large enough for blending and
video compression. Three rows of 36 blocks: at both ends of each row a black and a white reference, between them 32
bits.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.frame import Image

ROWS = 3
DATA_COLUMNS = 32
COLUMNS = DATA_COLUMNS + 4
ROW_SHARE = 1 / 54
"""Height of a row of blocks, as a share of the picture's height."""


@dataclass(frozen=True, slots=True)
class StreetCode:
    """What a picture says of itself: frame number (32 bits) and monotonic capture time in microseconds (48 bits)."""

    index: int
    captured_us: int


def code_height(height: int) -> int:
    """Rows of pixels at the bottom of a picture of `height` that are covered by the code."""
    return height - int(_edges(height)[0])


def write_code(image: Image, code: StreetCode) -> None:
    """Draw the code over the bottom of a picture, (h, w, 3) uint8, in place."""
    payload = (code.index & 0xFFFFFFFF).to_bytes(4, "big") + (code.captured_us & (1 << 48) - 1).to_bytes(6, "big")
    checked = payload + (zlib.crc32(payload) & 0xFFFF).to_bytes(2, "big")
    bits = np.unpackbits(np.frombuffer(checked, np.uint8)).reshape(ROWS, DATA_COLUMNS)
    blocks = np.empty((ROWS, COLUMNS), np.uint8)
    blocks[:, :2] = (0, 1)
    blocks[:, 2:-2] = bits
    blocks[:, -2:] = (1, 0)
    height, width = image.shape[:2]
    tops = _edges(height)
    lefts = np.linspace(0, width, COLUMNS + 1).round().astype(int)
    row = np.repeat(blocks * np.uint8(255), np.diff(lefts), axis=1)
    image[tops[0] :] = np.repeat(row, np.diff(tops), axis=0)[..., None]


def read_code(image: Image) -> StreetCode | None:
    """Read the code from a picture, (h, w, 3) uint8; None where there is none or it is damaged."""
    levels = _levels(image)
    dark = (levels[:, 0] + levels[:, -1]) / 2
    bright = (levels[:, 1] + levels[:, -2]) / 2
    if (bright - dark < 32).any():
        return None
    bits = levels[:, 2:-2] > ((dark + bright) / 2)[:, None]
    checked = np.packbits(bits).tobytes()
    payload, checksum = checked[:10], checked[10:]
    if (zlib.crc32(payload) & 0xFFFF).to_bytes(2, "big") != checksum:
        return None
    return StreetCode(int.from_bytes(payload[:4], "big"), int.from_bytes(payload[4:], "big"))


def _edges(height: int) -> NDArray[np.int_]:
    edges: NDArray[np.int_] = np.linspace(height * (1 - ROWS * ROW_SHARE), height, ROWS + 1).round().astype(int)
    return edges


def _levels(image: Image) -> NDArray[np.float64]:
    """Mean grey level of the middle of each block, (ROWS, COLUMNS)."""
    height, width = image.shape[:2]
    tops, block = _edges(height), width / COLUMNS
    levels = np.empty((ROWS, COLUMNS))
    for row in range(ROWS):
        margin = (tops[row + 1] - tops[row]) // 4
        band = image[tops[row] + margin : tops[row + 1] - margin].mean(axis=(0, 2))
        for column in range(COLUMNS):
            left, right = round((column + 0.25) * block), round((column + 0.75) * block)
            levels[row, column] = band[left : max(right, left + 1)].mean()
    return levels
