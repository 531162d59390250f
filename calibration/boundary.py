"""How well the borders of classes are met. IoU hardly sees a border that is off by three pixels."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.frame import UNKNOWN, ClassMap

TOLERANCE_SHARE = 0.0075
"""Of the picture's diagonal: how far off a border may be and still count as met; 4.5 pixels at 480x360. As in Csurka et
al., "What is a good evaluation measure for semantic segmentation?", BMVC 2013."""


@dataclass(frozen=True, slots=True, eq=False)
class BoundaryScores:
    """Boundary precision, recall and F by class, each (classes,) float64 in 0..1, NaN where a class has no border.

    precision = predicted border pixels near a labelled one / predicted ones; recall the other way round;
    f = 2 P R / (P + R), after Csurka et al., but of the pixels of all pictures together.

    Attributes:
        mean_f: mean over the classes that have one.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f: NDArray[np.float64]
    mean_f: float


class BoundaryCounter:
    """Counts border pixels over as many pictures as are added; the order does not matter.

    A border pixel has one of its four neighbours in another class; ignored pixels have no border and make none.

    Args:
        classes: number of classes; ids are 0..classes-1.
        ignore: label id that is left out.
    """

    def __init__(self, classes: int, ignore: int = UNKNOWN) -> None:
        self._classes = classes
        self._ignore = ignore
        self._counts = np.zeros((classes, 4), np.int64)  # predicted, of these near; labelled, of these near

    def add(self, label: ClassMap, prediction: ClassMap) -> None:
        """Count a picture: labels and predictions, both (h, w) uint8."""
        counted = label != self._ignore
        tolerance_px = TOLERANCE_SHARE * float(np.hypot(*label.shape))
        borders = [(ids, _border(ids, counted)) for ids in (prediction, label)]
        for class_id in range(self._classes):
            if class_id == self._ignore:
                continue
            predicted, labelled = (border & (ids == class_id) for ids, border in borders)
            self._counts[class_id] += (
                np.count_nonzero(predicted),
                np.count_nonzero(predicted & _near(labelled, tolerance_px)),
                np.count_nonzero(labelled),
                np.count_nonzero(labelled & _near(predicted, tolerance_px)),
            )

    def scores(self) -> BoundaryScores:
        """All scores of what was added so far."""
        predicted, predicted_near, labelled, labelled_near = self._counts.T.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision, recall = predicted_near / predicted, labelled_near / labelled
            f = 2 * precision * recall / (precision + recall)
        f[(predicted + labelled > 0) & np.isnan(f)] = 0.0  # missed altogether, or invented
        known = f[~np.isnan(f)]
        return BoundaryScores(precision, recall, f, float(known.mean()) if known.size else float("nan"))


def _border(ids: ClassMap, counted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    border = np.zeros(ids.shape, np.bool_)
    for axis in (0, 1):
        first, second = (np.s_[:-1], np.s_[1:]) if axis == 0 else (np.s_[:, :-1], np.s_[:, 1:])
        differs = (ids[first] != ids[second]) & counted[first] & counted[second]
        border[first] |= differs
        border[second] |= differs
    return border


def _near(border: NDArray[np.bool_], tolerance_px: float) -> NDArray[np.bool_]:
    if not border.any():
        return border
    distance = cv2.distanceTransform((~border).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    near: NDArray[np.bool_] = distance <= tolerance_px
    return near
