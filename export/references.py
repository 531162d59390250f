"""Verification frames with what the float model says of them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vidseg.calibration.dataset import LabelledFolder, labelled_folder
from vidseg.calibration.evaluation import label_names, read_mapping
from vidseg.calibration.frame_filter import thumbnail
from vidseg.calibration.gate import LabelOptions, Reference
from vidseg.calibration.margin import sure_pixels
from vidseg.calibration.metrics import ConfusionMatrix
from vidseg.export.cut import UPSAMPLING_WE_ADD
from vidseg.export.frames import Indexed
from vidseg.export.graph import Graph
from vidseg.export.observe import with_outputs
from vidseg.export.quantized_model import FloatModel
from vidseg.export.runner import GraphRunner, Tick
from vidseg.runtime.decoding import CLASS_MAP
from vidseg.runtime.engines.graph import INPUT
from vidseg.runtime.errors import DatasetError
from vidseg.runtime.frame import UNKNOWN, ClassMap, Image
from vidseg.runtime.geometry import Fit, Placement, placement_of

Pictures: TypeAlias = Indexed[Image] | LabelledFolder
"""Frames, or pairs of image and labels; read anew each time."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelledVerification:
    """Labelled pictures to verify with.

    Attributes:
        folder: pictures and labels.
        options: how they are scored.
        names: of the label ids.
        thumbnails: of all pictures, (m, 24, 32) uint8, so that none is calibrated on.
    """

    folder: LabelledFolder
    options: LabelOptions
    names: tuple[str, ...]
    thumbnails: NDArray[np.uint8]


def labelled_verification(
    images: Path | None, labels: Path | None, mapping: Path | None, ignore: int, class_names: Sequence[str]
) -> LabelledVerification | None:
    """The labelled pictures that a caller names, each read and checked once; None where there are none.

    Raises:
        DatasetError: they are unreadable or do not fit together, a label is neither a class nor the ignored id, or none
            is a class.
        ConfigurationError: the mapping does not fit.
    """
    if images is None or labels is None:
        return None
    ids = tuple(range(len(class_names))) if mapping is None else read_mapping(mapping, class_names)
    names = label_names(class_names, ids)
    folder = labelled_folder(images, labels)
    thumbnails, pixels = [], 0
    for pair in folder:
        ConfusionMatrix(len(names), ignore).add(pair.label, pair.label, pair.name)  # refuses ids that are no class
        thumbnails.append(thumbnail(pair.image))
        pixels += int(np.count_nonzero(pair.label != ignore))
    if not pixels:
        raise DatasetError(f"{labels}: no pixel is labelled", f"the ignored id {ignore} only", "Check --verify-ignore.")
    table = (*ids, *[UNKNOWN] * (256 - len(ids)))
    return LabelledVerification(folder, LabelOptions(len(names), ignore, table), names, np.stack(thumbnails))


class References:
    """What the float model says of pictures, in their order; they can be gone through again and again.

    Pictures and labels are read anew each time; what the model says of them is kept compressed: 65 KiB for a street
    scene of 2048x1024, where picture, labels and answer have 12 MiB.

    Args:
        pictures: they have to stay where they are.
    """

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self._answers: list[tuple[tuple[int, ...], bytes, bytes]] = []

    def append(self, class_map: ClassMap, sure: NDArray[np.bool_]) -> None:
        """Keep what the model says of the next picture, see `Reference`."""
        classes = zlib.compress(np.ascontiguousarray(class_map).data, level=1)
        self._answers.append((class_map.shape, classes, zlib.compress(np.packbits(sure).data, level=1)))

    def __len__(self) -> int:
        return len(self._answers)

    def __getitem__(self, number: int) -> Reference:
        """Read one, from 0.

        Raises:
            DatasetError: the picture cannot be read any more.
        """
        shape, class_map, sure = self._answers[number]
        image, label = _picture_of(self._pictures, number)
        bits = np.unpackbits(np.frombuffer(zlib.decompress(sure), np.uint8), count=shape[0] * shape[1])
        return Reference(
            image,
            np.frombuffer(zlib.decompress(class_map), np.uint8).reshape(shape),
            bits.view(np.bool_).reshape(shape),
            label,
        )

    def __iter__(self) -> Iterator[Reference]:
        """One after the other; none is kept."""
        return (self[number] for number in range(len(self)))


def _picture_of(pictures: Pictures, number: int) -> tuple[Image, ClassMap | None]:
    """A picture, (H, W, 3) uint8 BGR, and its labels, (H, W) uint8, where it has some."""
    if isinstance(pictures, LabelledFolder):
        pair = pictures[number]
        return pair.image, pair.label
    return pictures[number], None


def float_references(runner: GraphRunner, model: FloatModel, fit: Fit, pictures: Pictures, tick: Tick) -> References:
    """Run the float model over pictures of any size.

    Args:
        runner: where it runs.
        model: the float graph.
        fit: how a picture is laid on its input.
        pictures: of any size.
        tick: called after each.
    """
    graph = Graph(model.content)
    _, height, width, _ = graph.shape(INPUT)
    placements: list[Placement] = []

    def fitted() -> Iterator[Image]:
        for number in range(len(pictures)):
            image, _ = _picture_of(pictures, number)
            placements.append(placement_of((image.shape[1], image.shape[0]), (width, height), fit))
            yield placements[-1].input_from_frame(image)

    found = References(pictures)
    content = with_outputs(graph, [model.scores])
    for values in runner.values(content, (CLASS_MAP, model.scores), fitted(), tick):
        shown = placements[-1]
        class_map = np.asarray(values[CLASS_MAP][0], np.uint8)
        sure = _sure_of(model, values[model.scores]).view(np.uint8)
        found.append(shown.without_padding(class_map), shown.without_padding(sure).view(np.bool_))
    return found


def _sure_of(model: FloatModel, scores: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where the model is sure, (H, W) bool on its output grid."""
    planes = np.moveaxis(scores, model.axis, 1)[0]
    alignment = model.upsampling.alignment if model.upsampling else UPSAMPLING_WE_ADD
    return sure_pixels(planes, model.size_wh, alignment, probabilities=model.probabilities)
