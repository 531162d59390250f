"""From an engine's outputs to the classes of one picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.errors import EngineError
from vidseg.runtime.frame import ClassMap, Image
from vidseg.runtime.manifest import UpsamplingSpec
from vidseg.runtime.upsampling import Scores, SparseUpsampler

CLASS_MAP = "class_map"
CONFIDENCE = "confidence"
SCORES = "scores"

Outputs: TypeAlias = Mapping[str, NDArray[Any]]
"""Arrays by the name of the output. A ticket's have the batch as first axis, a decoder's do not."""

BLENDED = "blended"
"""The output of engines that draw: (H, W, 3) uint8 BGR at the frame's size. A ticket's is an array of such arrays."""


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What a model says of one picture, on the whole of its output grid.

    Attributes:
        class_map: (h, w) uint8.
        confidence: (h, w) uint8, 0..255; None where nobody asked.
        blended: (H, W, 3) uint8 BGR, the frame with the classes' colours over it; None where the engine does not draw.
    """

    class_map: ClassMap
    confidence: NDArray[np.uint8] | None = None
    blended: Image | None = None


Decoder: TypeAlias = Callable[[Outputs], Prediction]
"""Any thread may call it, as often as it likes."""


def decode_class_map(outputs: Outputs) -> Prediction:
    """Outputs of a graph that ends in class ids."""
    return Prediction(outputs[CLASS_MAP], outputs.get(CONFIDENCE), outputs.get(BLENDED))


class ScoresDecoder:
    """For a graph that was cut before its last upsampling: does the rest, exactly and sparsely.

    Args:
        spec: how the graph was cut.
        size_wh: of the class maps.
        confidence: give it too.
    """

    def __init__(self, spec: UpsamplingSpec, size_wh: tuple[int, int], *, confidence: bool = False) -> None:
        self._grid_wh = spec.grid_wh
        self._upsampler = SparseUpsampler(spec.grid_wh, size_wh, spec.alignment)
        self._are_logits = spec.scores == "logits"
        self._confidence = confidence

    def __call__(self, outputs: Outputs) -> Prediction:
        """`scores`, (classes, h, w) float32, to a prediction.

        Raises:
            EngineError: they are not of the grid's size.
        """
        scores: Scores = outputs[SCORES]
        if scores.shape[1:] != self._grid_wh[::-1]:
            raise EngineError("the graph gives scores of another size than its manifest says", f"{scores.shape}")
        return Prediction(self._upsampler.class_map(scores), self._confidence_of(scores) if self._confidence else None)

    def _confidence_of(self, scores: Scores) -> NDArray[np.uint8]:
        """The largest probability on the coarse grid, then bilinear, in 255ths."""
        top = scores.max(axis=0)
        if self._are_logits:
            top = 1 / np.exp(scores - top).sum(axis=0)  # softmax of the largest
        confidence: NDArray[np.uint8] = np.rint(self._upsampler.plane(top) * 255).astype(np.uint8)
        return confidence


def outputs_of(
    upsampling: UpsamplingSpec | None, size_wh: tuple[int, int], *, confidence: bool = False
) -> tuple[tuple[str, ...], Decoder]:
    """Which outputs of a graph to fetch, and what makes a prediction of them.

    Args:
        upsampling: what is left to do; None where the graph does all.
        size_wh: of the class maps.
        confidence: predictions have one.
    """
    if upsampling is not None:
        return (SCORES,), ScoresDecoder(upsampling, size_wh, confidence=confidence)
    return (CLASS_MAP, CONFIDENCE) if confidence else (CLASS_MAP,), decode_class_map
