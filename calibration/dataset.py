"""Labelled pictures in two folders, matched by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from vidseg.runtime.errors import DatasetError
from vidseg.runtime.frame import ClassMap, Image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class LabelledFolder:
    """Pairs of an image file and a label file of the same name, but for the ending, in sorted order."""

    pairs: tuple[tuple[Path, Path], ...]

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[tuple[Image, ClassMap]]:
        """Images (H, W, 3) uint8 BGR and labels (H, W) uint8.

        Raises:
            DatasetError: a file is unreadable, labels are no class ids, or the sizes of a pair differ.
        """
        return (_read_pair(image, label) for image, label in self.pairs)


def labelled_folder(images: Path | str, labels: Path | str) -> LabelledFolder:
    """Match the files of two folders.

    Labels are PNG: one channel of 8 bits holding class ids, or an indexed palette whose indices are class ids.

    Raises:
        DatasetError: a folder is missing or empty, two images share a name, or one has no labels.
    """
    image_files = _by_stem(Path(images), IMAGE_SUFFIXES)
    label_files = _by_stem(Path(labels), (".png",))
    missing = sorted(image_files.keys() - label_files.keys())
    if missing:
        raise DatasetError(
            f"{labels}: no labels for {image_files[missing[0]].name}",
            f"{len(missing)} of {len(image_files)} images without",
            f"Add {missing[0]}.png, or remove the image.",
        )
    return LabelledFolder(tuple((path, label_files[stem]) for stem, path in sorted(image_files.items())))


def _by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    if not folder.is_dir():
        raise DatasetError(f"{folder}: there is no such folder", "nothing", "Check the path.")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes:
            continue
        if path.stem in files:
            raise DatasetError(f"{folder}: two files of one name", f"{files[path.stem].name} and {path.name}")
        files[path.stem] = path
    if not files:
        raise DatasetError(f"{folder}: no pictures", f"no file that ends in {', '.join(suffixes)}", "Check the path.")
    return files


def _read_pair(image_path: Path, label_path: Path) -> tuple[Image, ClassMap]:
    image = cv2.imread(str(image_path), cv2.IMREAD_COLOR)
    if image is None:
        raise DatasetError(f"{image_path}: not a picture that can be read", f"{image_path.stat().st_size} bytes")
    label = read_labels(label_path)
    if image.shape[:2] != label.shape:
        raise DatasetError(
            f"{label_path}: the labels are not of the image's size",
            f"{label.shape[1]}x{label.shape[0]} for {image.shape[1]}x{image.shape[0]}",
            "Label at the image's size.",
        )
    return image.astype(np.uint8, copy=False), label


def read_labels(path: Path) -> ClassMap:
    """Class ids from a PNG, (H, W) uint8: its grey values, or the indices of its palette.

    Raises:
        DatasetError: unreadable, or neither of the two.
    """
    import av

    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            frame = next(container.decode(video=0))
            kind = frame.format.name
            # OpenCV resolves a palette to colours; FFmpeg keeps the indices.
            ids = frame.to_ndarray()[0] if kind == "pal8" else frame.to_ndarray()
    except (OSError, StopIteration, ValueError, IndexError, av.FFmpegError) as error:
        raise DatasetError(f"{path}: not a picture that can be read", str(error)[:80] or "no picture") from error
    if kind not in {"gray", "pal8"} or ids.ndim != 2:
        raise DatasetError(
            f"{path}: labels are one channel of 8 bits, or an indexed palette",
            f"a picture of format {kind}",
            "Save class ids, not colours.",
        )
    return np.ascontiguousarray(ids)
