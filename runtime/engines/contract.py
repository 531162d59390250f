"""The graph contract that every CPU engine checks: `image` uint8 NHWC in, `class_map` uint8 NHW out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.errors import EngineError

INPUT = "image"
OUTPUT = "class_map"


def check_graph(name: str, inputs: dict[str, tuple[str, Sequence[object]]], outputs: dict[str, str]) -> tuple[int, int]:
    """Check a loaded graph's inputs (type and shape by name) and outputs (type by name).

    Returns:
        Height and width of the input in pixels.

    Raises:
        EngineError: the graph is not of the contract.
    """
    kind, shape = inputs.get(INPUT, ("", ()))
    if list(inputs) != [INPUT] or kind != "uint8" or len(shape) != 4 or shape[3] != 3:
        raise EngineError(
            f"{name}: the graph does not take `{INPUT}`, uint8 (n, h, w, 3)",
            ", ".join(f"{key} {kind} {list(shape)}" for key, (kind, shape) in inputs.items()),
            "Export the model with `vidseg export`.",
        )
    if outputs.get(OUTPUT) != "uint8":
        raise EngineError(
            f"{name}: the graph does not give `{OUTPUT}`, uint8",
            ", ".join(f"{key} {kind}" for key, kind in outputs.items()),
            "Export the model with `vidseg export`.",
        )
    _, height, width, _ = shape
    if not isinstance(height, int) or not isinstance(width, int):
        raise EngineError(f"{name}: the graph's input has no fixed size", f"{height} x {width}")
    return height, width


def check_batch(batch: NDArray[np.uint8], input_shape_nhwc: tuple[int, int, int, int]) -> None:
    """Refuse a batch that the graph would misread.

    Raises:
        EngineError: wrong dtype, shape or memory order.
    """
    fits = batch.ndim == 4 and 1 <= batch.shape[0] <= input_shape_nhwc[0] and batch.shape[1:] == input_shape_nhwc[1:]
    if batch.dtype != np.uint8 or not fits or not batch.flags.c_contiguous:
        raise EngineError(
            f"the batch does not fit {input_shape_nhwc} uint8, C-contiguous", f"{batch.shape} {batch.dtype}"
        )
