"""Verification frames with what the float model says of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vidseg.calibration.dataset import LabelledFolder, labelled_folder
from vidseg.calibration.evaluation import label_names, read_mapping
from vidseg.calibration.frame_filter import thumbnail
from vidseg.calibration.gate import LabelOptions, Reference
from vidseg.export.graph import Graph
from vidseg.export.int8 import FloatModel
from vidseg.export.observe import with_outputs
from vidseg.export.runner import GraphRunner, Tick
from vidseg.runtime.decoding import CLASS_MAP
from vidseg.runtime.frame import UNKNOWN, ClassMap, Image
from vidseg.runtime.geometry import Fit, Placement, placement_of

SURE_MARGIN = 0.5
"""Between the two largest probabilities, from which on the float model is sure of a pixel."""


@dataclass(frozen=True, slots=True)
class LabelledVerification:
    """Labelled pictures to verify with.

    Attributes:
        folder: pictures and labels.
        options: how they are scored.
        names: of the label ids.
    """

    folder: LabelledFolder
    options: LabelOptions
    names: tuple[str, ...]

    def thumbnails(self) -> NDArray[np.uint8]:
        """Of all pictures, so that none is calibrated on."""
        return np.stack([thumbnail(pair.image) for pair in self.folder])


def labelled_verification(
    images: Path | None, labels: Path | None, mapping: Path | None, ignore: int, class_names: Sequence[str]
) -> LabelledVerification | None:
    """The labelled pictures that a caller names; None where there are none.

    Raises:
        DatasetError, ConfigurationError: they do not fit.
    """
    if images is None or labels is None:
        return None
    ids = tuple(range(len(class_names))) if mapping is None else read_mapping(mapping, class_names)
    names = label_names(class_names, ids)
    table = (*ids, *[UNKNOWN] * (256 - len(ids)))
    return LabelledVerification(labelled_folder(images, labels), LabelOptions(len(names), ignore, table), names)


@dataclass(frozen=True, slots=True)
class Judge:
    """Says what the float model thinks of frames.

    Attributes:
        runner: where it runs.
        model: the float graph.
        input_wh: of the input.
        fit: how a frame is laid on it.
    """

    runner: GraphRunner
    model: FloatModel
    input_wh: tuple[int, int]
    fit: Fit

    def references(self, pictures: Iterable[tuple[Image, ClassMap | None]], tick: Tick) -> list[Reference]:
        """For each picture, of any size, with its labels where it has some."""
        kept: list[tuple[Image, ClassMap | None, Placement]] = []

        def fitted() -> Iterator[Image]:
            for image, label in pictures:
                placement = placement_of((image.shape[1], image.shape[0]), self.input_wh, self.fit)
                kept.append((image, label, placement))
                yield placement.input_from_frame(image)

        found = []
        scores = self.model.scores
        content = with_outputs(Graph(self.model.content), [scores])
        for values in self.runner.values(content, (CLASS_MAP, scores), fitted(), tick):
            image, label, placement = kept.pop()
            class_map = placement.without_padding(np.asarray(values[CLASS_MAP][0], np.uint8))
            sure = placement.without_padding(self._sure(values[scores])) > 0
            found.append(Reference(image, class_map, sure, label))
        return found

    def _sure(self, scores: NDArray[np.float32]) -> NDArray[np.uint8]:
        planes = np.moveaxis(scores, self.model.axis, 1)[0]
        margin = cv2.resize(margin_of(planes, probabilities=self.model.probabilities), self.model.size_wh)
        return (margin >= SURE_MARGIN).astype(np.uint8)


def margin_of(planes: NDArray[np.float32], *, probabilities: bool) -> NDArray[np.float32]:
    """By how much the most probable class leads: (classes, h, w) float32 scores to (h, w) float32 in 0..1.

    One class is a probability against its complement.
    """
    if planes.shape[0] == 1:
        return np.asarray(np.abs(2 * planes[0] - 1), np.float32)
    shares = planes
    if not probabilities:
        powers = np.exp(planes - planes.max(axis=0))
        shares = powers / powers.sum(axis=0)
    two = np.partition(shares, -2, axis=0)[-2:]
    return np.asarray(two[1] - two[0], np.float32)
