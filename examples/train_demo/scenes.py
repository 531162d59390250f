"""Frames of the rendered street for training and for measuring, from seeds that never meet."""

from __future__ import annotations

import random

import cv2
import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.frame import UNKNOWN
from vidseg.runtime.sources.street.code import StreetCode, code_height, write_code
from vidseg.runtime.sources.street.render import Street

INPUT_WH = (480, 360)
TRAINING_SEEDS = 1_000_000
"""Training uses the seeds from here on; tests and demos stay below 10,000."""

UNSEEN_SEEDS = 5_000
"""Measuring uses the seeds from here on."""

_SIZES = ((640, 480), (640, 480), (640, 480), (640, 360), (480, 360))


def scene_frames(first_seed: int, seeds: int, frames_per_seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images (n, 360, 480, 3) uint8 BGR, scaled as the pipeline does it, and labels (n, 360, 480) uint8."""
    images, labels = [], []
    for seed in range(first_seed, first_seed + seeds):
        rng = random.Random(seed)
        size_wh = rng.choice(_SIZES)
        street = Street(seed, size_wh)
        for _ in range(frames_per_seed):
            index = rng.randrange(100_000)
            image, label = street.render(index, index / 30)
            write_code(image, StreetCode(index, rng.randrange(1 << 48)))
            label[-code_height(size_wh[1]) :] = UNKNOWN
            images.append(cv2.resize(image, INPUT_WH, interpolation=cv2.INTER_LINEAR))
            labels.append(cv2.resize(label, INPUT_WH, interpolation=cv2.INTER_NEAREST))
    return np.stack(images).astype(np.uint8), np.stack(labels).astype(np.uint8)
