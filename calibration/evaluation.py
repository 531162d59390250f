"""Measuring a model on labelled pictures."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vidseg.calibration.boundary import TOLERANCE_SHARE, BoundaryCounter, BoundaryScores
from vidseg.calibration.dataset import LabelledImage
from vidseg.calibration.metrics import ConfusionMatrix, Scores
from vidseg.runtime.errors import ConfigurationError, DatasetError
from vidseg.runtime.frame import UNKNOWN, Image, Segmentation
from vidseg.runtime.yaml_reading import read_yaml

Progress: TypeAlias = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """How predictions are compared with labels.

    Attributes:
        ignore: label id that is left out.
        mapping: label id by the model's class id; UNKNOWN for a class that is in no label (predicting it is a miss).
            None where the ids are the same.
    """

    ignore: int = UNKNOWN
    mapping: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationReport:
    """Scores of a model on a dataset.

    Attributes:
        class_names: of the label ids 0..n-1.
        ignore: the label id that was left out; it has neither pixels nor scores.
        pictures: how many were compared.
        matrix: (n, n + 1) int64, see `ConfusionMatrix.counts`.
        scores: see `Scores`.
        boundary: see `BoundaryScores`.
    """

    class_names: tuple[str, ...]
    ignore: int
    pictures: int
    matrix: NDArray[np.int64]
    scores: Scores
    boundary: BoundaryScores

    def scored(self) -> Iterator[tuple[int, str]]:
        """Id and name of every class but the ignored one."""
        return ((number, name) for number, name in enumerate(self.class_names) if number != self.ignore)


def evaluate(
    segment: Callable[[Image], Segmentation],
    dataset: Iterable[LabelledImage],
    class_names: Sequence[str],
    options: EvaluationOptions | None = None,
    progress: Progress = lambda _done: None,
) -> EvaluationReport:
    """Infer every picture and score the predictions at the labels' size, nearest neighbour, in one matrix.

    The scored classes are the label ids from 0 to the highest that a class of the model leads to, without the ignored
    one. Where such an id is in the labels but no class leads to it, it scores 0: the model misses it.

    Args:
        segment: what is measured: a `Segmenter`, or any callable from (H, W, 3) uint8 BGR to a result.
        dataset: see `labelled_folder`.
        class_names: of the model's classes.
        options: see `EvaluationOptions`.
        progress: called with the number of pictures done.

    Raises:
        ConfigurationError: the mapping leads to no label.
        DatasetError: there is no picture, or a label is neither a class nor ignored.
        EngineError: inference failed.
    """
    options = options or EvaluationOptions()
    mapping = options.mapping if options.mapping is not None else tuple(range(len(class_names)))
    table = np.full(256, UNKNOWN, np.uint8)
    table[: len(mapping)] = mapping
    names = label_names(class_names, mapping)
    matrix = ConfusionMatrix(len(names), options.ignore)
    boundary = BoundaryCounter(len(names), options.ignore)
    done = 0
    for item in dataset:
        prediction = table[segment(item.image).at_frame_size()]
        matrix.add(item.label, prediction, item.name)
        boundary.add(item.label, prediction)
        done += 1
        progress(done)
    if not done:
        raise DatasetError("there is nothing to evaluate", "no picture", "Give at least one labelled picture.")
    return EvaluationReport(names, options.ignore, done, matrix.counts, matrix.scores(), boundary.scores())


def read_mapping(path: Path | str, class_names: Sequence[str]) -> tuple[int, ...]:
    """Label ids by the model's class ids, from a file. 255 is for classes that are in no label.

    Either one label id per class, separated by commas or white space, in the order of the model's classes; or YAML, a
    mapping from class names or ids to label ids, where a class that is left out is in no label. `#` starts a comment.

    Raises:
        ConfigurationError: unreadable, an unknown class or one that is there twice, an id that is no 0..255, or not
            one id per class.
    """
    path = Path(path)
    try:
        text = re.sub(r"(^|\s)#.*", "", path.read_text(encoding="utf-8"))
        is_list = re.fullmatch(r"[\s\d,]*", text)
        document = text if is_list else read_yaml(text)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: the map cannot be read", str(error), _MAP_FORMS) from error
    if isinstance(document, dict):
        return _ids_by_class(path, document, class_names)
    text = "" if document is None else str(document)
    ids = tuple(_label_id(path, part) for part in text.replace(",", " ").split())
    if len(ids) != len(class_names):
        raise ConfigurationError(
            f"{path}: the map needs one label id per class", f"{len(ids)} for {len(class_names)} classes", _MAP_FORMS
        )
    return ids


def report_text(report: EvaluationReport) -> str:
    """A table by class and the means."""
    scores = report.scores
    width = max(len("class"), *(len(name) for name in report.class_names))
    lines = [f"{'class':{width}}     IoU  precision  recall      F1  boundary F      pixels"]
    for number, name in report.scored():
        cells = (scores.iou, scores.precision, scores.recall, scores.f1, report.boundary.f)
        iou, precision, recall, f1, edge = (_cell(values[number]) for values in cells)
        lines.append(f"{name:{width}}  {iou}    {precision}  {recall}  {f1}      {edge}  {scores.pixels[number]:10}")
    lines += [
        "",
        f"mean IoU        {_cell(scores.mean_iou)}",
        f"pixel accuracy  {_cell(scores.pixel_accuracy)}",
        f"class accuracy  {_cell(scores.class_accuracy)}",
        f"boundary F      {_cell(report.boundary.mean_f)}  within {TOLERANCE_SHARE:.2%} of the diagonal",
        f"pictures        {report.pictures:6}",
    ]
    return "\n".join(lines)


def report_document(report: EvaluationReport) -> dict[str, Any]:
    """The same as plain values for JSON, with the whole matrix. NaN becomes None."""
    scores = report.scores
    columns = {
        "iou": scores.iou,
        "precision": scores.precision,
        "recall": scores.recall,
        "f1": scores.f1,
        "boundary_f": report.boundary.f,
    }
    return {
        "pictures": report.pictures,
        "ignore": report.ignore,
        "mean_iou": _value(scores.mean_iou),
        "pixel_accuracy": _value(scores.pixel_accuracy),
        "class_accuracy": _value(scores.class_accuracy),
        "boundary_f": _value(report.boundary.mean_f),
        "boundary_tolerance": TOLERANCE_SHARE,
        "classes": [
            {"id": number, "name": name, "pixels": int(scores.pixels[number])}
            | {column: _value(values[number]) for column, values in columns.items()}
            for number, name in report.scored()
        ],
        "matrix": report.matrix.tolist(),
    }


_MAP_FORMS = "Write one label id per class, or YAML lines such as `road: 3`."


def label_names(class_names: Sequence[str], mapping: Sequence[int]) -> tuple[str, ...]:
    """A name for each label id: those of the classes that lead to it.

    Raises:
        ConfigurationError: no class leads to a label.
    """
    reached = [label_id for label_id in mapping if label_id != UNKNOWN]
    if not reached:
        raise ConfigurationError("the map leads to no label", "255 for every class", _MAP_FORMS)
    names: list[list[str]] = [[] for _ in range(max(reached) + 1)]
    for name, label_id in zip(class_names, mapping, strict=True):
        if label_id != UNKNOWN:
            names[label_id].append(name)
    return tuple("/".join(group) if group else f"label {number}" for number, group in enumerate(names))


def _ids_by_class(path: Path, document: dict[Any, Any], class_names: Sequence[str]) -> tuple[int, ...]:
    numbers = {name: number for number, name in enumerate(class_names)}
    # YAML reads some words as truth values, which are numbers to Python.
    numbers |= {str(number): number for number in range(len(class_names)) if str(number) not in numbers}
    ids: dict[int, int] = {}
    for key, value in document.items():
        number = numbers.get(str(key))
        if number is None:
            raise ConfigurationError(
                f"{path}: the model has no class {key!r}", "", f"Its classes are {', '.join(class_names)}."
            )
        if number in ids:
            raise ConfigurationError(f"{path}: a class is there twice", f"{key!r}", "Remove one.")
        ids[number] = _label_id(path, value)
    return tuple(ids.get(number, UNKNOWN) for number in range(len(class_names)))


def _label_id(path: Path, value: object) -> int:
    text = str(value)
    if not text.isascii() or not text.isdigit() or int(text) > UNKNOWN:
        raise ConfigurationError(f"{path}: a label id is a number of 0..255", repr(text[:20]), _MAP_FORMS)
    return int(text)


def _cell(value: float) -> str:
    return "     -" if math.isnan(value) else f"{value:.4f}"


def _value(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
