"""The accuracy gate: what a quantized model may lose against the float one, and how that is measured.

With labels, mean IoU and the worst class. Without, the share of pixels whose class differs although the float model was
sure of it: plain agreement refuses good models, because most differences are at borders, where that is unsure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vidseg.calibration.boundary import BoundaryCounter
from vidseg.calibration.metrics import ConfusionMatrix
from vidseg.runtime.errors import UsageError
from vidseg.runtime.frame import ClassMap, Image, Segmentation

MIN_CLASS_SHARE = 0.001
"""Classes with fewer of the labelled pixels are left out of the worst class: a few pixels decide about them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a quantized model may lose.

    Attributes:
        max_miou_drop: of mean IoU, in points (hundredths); with labels.
        max_class_drop: of the worst class's IoU, in points; with labels.
        max_disagreement: per cent of all pixels that get another class where the float model is sure; without labels.
    """

    max_miou_drop: float = 0.5
    max_class_drop: float = 2.0
    max_disagreement: float = 0.5

    def __post_init__(self) -> None:
        for name in ("max_miou_drop", "max_class_drop", "max_disagreement"):
            value = getattr(self, name)
            if not 0 <= value <= 100:
                raise UsageError(f"{name} is between 0 and 100", str(value))


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What the float model says of one verification frame.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        class_map: (h, w) uint8 on the output grid.
        sure: (h, w) bool, where the two largest probabilities are at least 0.5 apart.
        label: (H, W) uint8 of label ids; None where nobody labelled it.
    """

    image: Image
    class_map: ClassMap
    sure: NDArray[np.bool_]
    label: ClassMap | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """A variant against the float model on the verification frames.

    Attributes:
        frames: how many.
        agreement: share of pixels with the same class.
        disagreement: share of pixels with another class where the float model is sure.
        frame_disagreement: the same by frame, (frames,) float64.
        iou: by class against the labels, (classes,) float64, NaN where a class is neither in labels nor predictions;
            None without labels.
        boundary_f: mean over the classes against the labels; None without labels.
        class_shares: of the labelled pixels, (classes,) float64; None without labels.
    """

    frames: int
    agreement: float
    disagreement: float
    frame_disagreement: NDArray[np.float64]
    iou: NDArray[np.float64] | None = None
    boundary_f: float | None = None
    class_shares: NDArray[np.float64] | None = None

    @property
    def mean_iou(self) -> float | None:
        """Mean over the classes that are labelled; None where nothing is.

        One pixel decides whether a class without labels has an IoU, of 0, or none: means of different classes would be
        compared.
        """
        if self.iou is None or self.class_shares is None or not self.class_shares.any():
            return None
        return float(self.iou[self.class_shares > 0].mean())

    def worst_frames(self, count: int) -> list[int]:
        """Numbers of the frames that differ most where the float model is sure, the worst first."""
        return [int(number) for number in np.argsort(-self.frame_disagreement, kind="stable")[:count]]


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """How labels are compared.

    Attributes:
        classes: number of label ids.
        ignore: the one that is left out.
        table: (256,) uint8, label id by the model's class id.
    """

    classes: int
    ignore: int
    table: tuple[int, ...]


def compare(
    segment: Callable[[Image], Segmentation],
    references: Iterable[Reference],
    labels: LabelOptions | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Comparison:
    """Run a variant on the verification frames.

    Args:
        segment: the variant, see `Segmenter`.
        references: what the float model says; with labels in all of them or in none.
        labels: how to score them; None without.
        progress: called after each frame.
    """
    equal: list[float] = []
    sure: list[float] = []
    matrix = ConfusionMatrix(labels.classes, labels.ignore) if labels else None
    boundary = BoundaryCounter(labels.classes, labels.ignore) if labels else None
    table = np.array(labels.table, np.uint8) if labels else None
    for reference in references:
        result = segment(reference.image)
        different = result.class_map != reference.class_map
        equal.append(1 - float(different.mean()))
        sure.append(float((different & reference.sure).mean()))
        if matrix is not None and boundary is not None and table is not None and reference.label is not None:
            mapped = table[result.at_frame_size()]
            matrix.add(reference.label, mapped)
            boundary.add(reference.label, mapped)
        progress()
    found = Comparison(len(equal), float(np.mean(equal)), float(np.mean(sure)), np.array(sure))
    if matrix is None or boundary is None:
        return found
    scores = matrix.scores()
    shares = scores.pixels / max(int(scores.pixels.sum()), 1)
    return replace(found, iou=scores.iou, boundary_f=boundary.scores().mean_f, class_shares=shares)


def faults(found: Comparison, reference: Comparison, budget: Budget, class_names: Sequence[str] = ()) -> list[str]:
    """What a variant loses beyond the budget, a line each; empty where it passes.

    Args:
        found: of the variant.
        reference: of the float model, on the same frames.
        budget: see `Budget`.
        class_names: of the label ids, for the messages.
    """
    if found.mean_iou is None or reference.mean_iou is None:
        percent = found.disagreement * 100
        if not percent <= budget.max_disagreement:  # not a number: of no frame
            return [f"{percent:.2f} % of the pixels differ where float is sure, {budget.max_disagreement} % may"]
        return []
    lines = []
    drop = (reference.mean_iou - found.mean_iou) * 100
    if drop > budget.max_miou_drop:
        lines.append(f"mean IoU falls by {drop:.2f} points, {budget.max_miou_drop} may")
    worst, class_drop = worst_class(found, reference)
    if worst is not None and class_drop > budget.max_class_drop:
        name = class_names[worst] if worst < len(class_names) else f"class {worst}"
        lines.append(f"IoU of {name} falls by {class_drop:.2f} points, {budget.max_class_drop} may")
    return lines


def worst_class(found: Comparison, reference: Comparison) -> tuple[int | None, float]:
    """The label id whose IoU falls most, in points, among those with at least MIN_CLASS_SHARE of the pixels."""
    if found.iou is None or reference.iou is None or reference.class_shares is None:
        return None, 0.0
    drops = np.where(reference.class_shares >= MIN_CLASS_SHARE, (reference.iou - found.iou) * 100, np.nan)
    if np.isnan(drops).all():
        return None, 0.0
    worst = int(np.nanargmax(drops))
    return worst, float(drops[worst])
