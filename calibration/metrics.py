"""One confusion matrix over a whole dataset, and the scores that follow from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.errors import DatasetError
from vidseg.runtime.frame import UNKNOWN, ClassMap

_IDS = 256


class ConfusionMatrix:
    """Counts pixels by label and prediction, over as many pictures as are added.

    Pixels are counted in a 256 x 256 table and cut to the classes when read, so that adding costs one pass. Matrices
    of the same classes can be added; the order of adding does not matter.

    Args:
        classes: number of classes; ids are 0..classes-1.
        ignore: label id that is left out, whatever was predicted.
    """

    def __init__(self, classes: int, ignore: int = UNKNOWN) -> None:
        if not 1 <= classes < _IDS or not 0 <= ignore < _IDS:
            raise ValueError(f"1..255 classes and an ignored id of 0..255, not {classes} and {ignore}")
        self.classes = classes
        self.ignore = ignore
        self._counts = np.zeros(_IDS * _IDS, np.int64)

    def add(self, label: ClassMap, prediction: ClassMap, name: str = "labels") -> None:
        """Count a picture: labels and predictions, both (h, w) uint8. Messages call the labels `name`.

        Raises:
            DatasetError: the sizes differ, or a label is neither a class nor the ignored id; nothing was counted.
        """
        if label.shape != prediction.shape:
            raise DatasetError(f"{name}: labels and prediction differ in size", f"{label.shape}, {prediction.shape}")
        pair = np.left_shift(label, 8, dtype=np.uint16)
        pair |= prediction
        counts = np.bincount(pair.ravel(), minlength=_IDS * _IDS)
        outside = counts.reshape(_IDS, _IDS).sum(axis=1)
        outside[: self.classes] = 0
        outside[self.ignore] = 0
        if outside.any():
            found = int(outside.argmax())
            raise DatasetError(
                f"{name}: a label is no class of 0..{self.classes - 1} and not the ignored {self.ignore}",
                f"id {found} at {outside[found]} pixels",
                "Check the map and the ignored id.",
            )
        self._counts += counts

    def __add__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        if (self.classes, self.ignore) != (other.classes, other.ignore):
            raise ValueError(f"{self.classes} classes without {self.ignore} and {other.classes} without {other.ignore}")
        total = ConfusionMatrix(self.classes, self.ignore)
        total._counts = self._counts + other._counts
        return total

    @property
    def counts(self) -> NDArray[np.int64]:
        """(classes, classes + 1): rows are labels, columns predictions, the last one what is no class.

        Where the ignored id is among the classes, its row and column are zero, and predicting it is no class.
        """
        table = self._counts.reshape(_IDS, _IDS)[: self.classes].copy()
        square = table[:, : self.classes].copy()
        if self.ignore < self.classes:
            table[self.ignore] = square[self.ignore] = 0
            square[:, self.ignore] = 0
        other = table.sum(axis=1) - square.sum(axis=1)
        return np.concatenate([square, other[:, None]], axis=1)

    def scores(self) -> Scores:
        """All scores of what was added so far."""
        return _scores_of(self.counts)


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Scores by class, each (classes,) float64 in 0..1, and their means.

    With TP, FP and FN of a class, over all pictures: iou = TP / (TP + FP + FN) (Everingham et al., The PASCAL VOC
    challenge, 2010); precision = TP / (TP + FP), recall = TP / (TP + FN), f1 = 2 TP / (2 TP + FP + FN) (van Rijsbergen,
    Information Retrieval, 1979); mean IoU, pixel and class accuracy as in Long et al., Fully convolutional networks
    for semantic segmentation, 2015. A score whose denominator is 0 is NaN: a class in neither labels nor predictions
    has none. Means leave NaN out.

    Attributes:
        pixels: labelled pixels by class, (classes,) int64.
        mean_iou: mean of the IoUs.
        class_accuracy: mean of the recalls.
        pixel_accuracy: share of all labelled pixels that are right.
    """

    iou: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    pixels: NDArray[np.int64]
    mean_iou: float
    class_accuracy: float
    pixel_accuracy: float


def _scores_of(counts: NDArray[np.int64]) -> Scores:
    square = counts[:, :-1]
    hits = np.diag(square).astype(np.float64)
    labelled, predicted = counts.sum(axis=1), square.sum(axis=0)
    iou = _ratio(hits, labelled + predicted - hits)
    recall = _ratio(hits, labelled)
    total = int(labelled.sum())
    return Scores(
        iou=iou,
        precision=_ratio(hits, predicted),
        recall=recall,
        f1=_ratio(2 * hits, labelled + predicted),
        pixels=labelled,
        mean_iou=_mean(iou),
        class_accuracy=_mean(recall),
        pixel_accuracy=float(hits.sum() / total) if total else float("nan"),
    )


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
    ratio = np.full(part.shape, np.nan)
    np.divide(part, whole, out=ratio, where=np.asarray(whole) > 0)
    return ratio


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
