"""Measuring a model on labelled pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vidseg.calibration.metrics import ConfusionMatrix, Scores
from vidseg.runtime.engines import Engine
from vidseg.runtime.errors import ConfigurationError, DatasetError
from vidseg.runtime.frame import UNKNOWN, ClassMap, Frame, Image, Segmentation
from vidseg.runtime.geometry import Fit, placement_of

Progress: TypeAlias = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """How predictions are compared with labels.

    Attributes:
        fit: how an image is laid on the model's input.
        ignore: label id that is left out.
        mapping: label id by the model's class id; UNKNOWN for a class that is in no label (predicting it is a miss).
            None where the ids are the same.
    """

    fit: Fit = "stretch"
    ignore: int = UNKNOWN
    mapping: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationReport:
    """Scores of a model on a dataset.

    Attributes:
        class_names: of the label ids 0..n-1.
        pictures: how many were compared.
        matrix: (n, n + 1) int64, see `ConfusionMatrix.counts`.
        scores: see `Scores`.
    """

    class_names: tuple[str, ...]
    pictures: int
    matrix: NDArray[np.int64]
    scores: Scores


def evaluate(
    engine: Engine,
    dataset: Iterable[tuple[Image, ClassMap]],
    class_names: Sequence[str],
    options: EvaluationOptions | None = None,
    progress: Progress = lambda _done: None,
) -> EvaluationReport:
    """Infer every picture and score the predictions at the labels' size, nearest neighbour, in one matrix.

    Args:
        engine: a loaded model.
        dataset: images (H, W, 3) uint8 BGR with labels (H, W) uint8; see `labelled_folder`.
        class_names: of the model's classes.
        options: see `EvaluationOptions`.
        progress: called with the number of pictures done.

    Raises:
        DatasetError: there is no picture, or a label is neither a class nor ignored.
        EngineError: inference failed.
    """
    options = options or EvaluationOptions()
    mapping = options.mapping or tuple(range(len(class_names)))
    table = np.full(256, UNKNOWN, np.uint8)
    table[: len(mapping)] = mapping
    names = _label_names(class_names, mapping)
    matrix = ConfusionMatrix(len(names), options.ignore)
    done = 0
    for image, label in dataset:
        matrix.add(label, table[predict(engine, image, options.fit)])
        done += 1
        progress(done)
    if not done:
        raise DatasetError("there is nothing to evaluate", "no picture")
    return EvaluationReport(names, done, matrix.counts, matrix.scores())


def predict(engine: Engine, image: Image, fit: Fit) -> ClassMap:
    """The class map of one image at its own size, (H, W) uint8; 255 where the model did not look."""
    _, height, width, _ = engine.input_shape_nhwc
    placement = placement_of((image.shape[1], image.shape[0]), (width, height), fit)
    class_map = engine.enqueue(placement.input_from_frame(image)[None]).result()["class_map"][0]
    affine = placement.grid_from_frame((class_map.shape[1], class_map.shape[0]))
    frame = Frame("image", 0, 0, 0, 0, "pts", image)
    return Segmentation(frame, placement.without_padding(class_map), affine, 0.0).at_frame_size()


def read_mapping(path: Path | str, class_names: Sequence[str]) -> tuple[int, ...]:
    """Label ids by the model's class ids, from a file.

    Either one label id per class, separated by commas or white space, in the order of the model's classes; or YAML, a
    mapping from class names or ids to label ids, where classes that are left out are in no label.

    Raises:
        ConfigurationError: unreadable, an unknown class, an id that is no 0..255, or not one id per class.
    """
    import yaml

    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        document = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path}: the map cannot be read", str(error).splitlines()[0]) from error
    if isinstance(document, dict):
        ids = _ids_by_class(path, document, class_names)
    else:
        ids = [_label_id(path, part) for part in text.replace(",", " ").split()]
    if len(ids) != len(class_names):
        raise ConfigurationError(
            f"{path}: the map needs one label id per class", f"{len(ids)} for {len(class_names)} classes"
        )
    return tuple(ids)


def report_text(report: EvaluationReport) -> str:
    """A table by class and the means."""
    scores = report.scores
    width = max(len(name) for name in report.class_names)
    lines = [f"{'class':{width}}     IoU  precision  recall      F1      pixels"]
    for number, name in enumerate(report.class_names):
        cells = (scores.iou, scores.precision, scores.recall, scores.f1)
        iou, precision, recall, f1 = (_cell(values[number]) for values in cells)
        lines.append(f"{name:{width}}  {iou}    {precision}  {recall}  {f1}  {scores.pixels[number]:10}")
    lines += [
        "",
        f"mean IoU        {_cell(scores.mean_iou)}",
        f"pixel accuracy  {_cell(scores.pixel_accuracy)}",
        f"class accuracy  {_cell(scores.class_accuracy)}",
        f"pictures        {report.pictures:6}",
    ]
    return "\n".join(lines)


def report_document(report: EvaluationReport) -> dict[str, Any]:
    """The same as plain values for JSON, with the matrix. NaN becomes None."""
    scores = report.scores
    columns = {"iou": scores.iou, "precision": scores.precision, "recall": scores.recall, "f1": scores.f1}
    return {
        "pictures": report.pictures,
        "mean_iou": _value(scores.mean_iou),
        "pixel_accuracy": _value(scores.pixel_accuracy),
        "class_accuracy": _value(scores.class_accuracy),
        "classes": [
            {"name": name, "pixels": int(scores.pixels[number])}
            | {column: _value(values[number]) for column, values in columns.items()}
            for number, name in enumerate(report.class_names)
        ],
        "matrix": report.matrix.tolist(),
    }


def _label_names(class_names: Sequence[str], mapping: Sequence[int]) -> tuple[str, ...]:
    """Names of the label ids that the model can reach: the names of the classes that are mapped to each."""
    reached = [label_id for label_id in mapping if label_id != UNKNOWN]
    if not reached:
        raise ConfigurationError("the map leads to no label", "255 for every class")
    names = [[] for _ in range(max(reached) + 1)]  # type: list[list[str]]
    for name, label_id in zip(class_names, mapping, strict=True):
        if label_id != UNKNOWN:
            names[label_id].append(name)
    return tuple("/".join(group) if group else f"label {number}" for number, group in enumerate(names))


def _ids_by_class(path: Path, document: dict[Any, Any], class_names: Sequence[str]) -> list[int]:
    ids = [UNKNOWN] * len(class_names)
    for key, value in document.items():
        if key in class_names:
            number = list(class_names).index(key)
        elif isinstance(key, int) and 0 <= key < len(class_names):
            number = key
        else:
            raise ConfigurationError(f"{path}: the model has no class {key!r}", ", ".join(class_names))
        ids[number] = _label_id(path, value)
    return ids


def _label_id(path: Path, value: object) -> int:
    text = str(value)
    if not text.isascii() or not text.isdigit() or int(text) > UNKNOWN:
        raise ConfigurationError(f"{path}: a label id is a number of 0..255", repr(text[:20]))
    return int(text)


def _cell(value: float) -> str:
    return "     -" if math.isnan(value) else f"{value:.4f}"


def _value(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
