"""Labelled pictures in two folders, matched by name."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidseg.runtime.errors import DatasetError
from vidseg.runtime.frame import ClassMap, Image
from vidseg.runtime.sources.image import IMAGE_SUFFIXES, image_from_bytes

LABEL_SUFFIXES = frozenset({".png"})

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_COLORS = {0: "gray", 2: "colour", 4: "gray with transparency", 6: "colour with transparency"}


@dataclass(frozen=True, slots=True, eq=False)
class LabelledImage:
    """An image, (H, W, 3) uint8 BGR, and its labels, (H, W) uint8. `name` is what messages call the labels."""

    name: str
    image: Image
    label: ClassMap

    def __post_init__(self) -> None:
        if self.image.shape[:2] != self.label.shape:
            raise DatasetError(
                f"{self.name}: the labels are not of the image's size",
                f"{self.label.shape[1]}x{self.label.shape[0]} for {self.image.shape[1]}x{self.image.shape[0]}",
                "Label at the image's size.",
            )


@dataclass(frozen=True, slots=True)
class LabelledFolder:
    """Pairs of an image file and a label file of the same name, but for the ending, in sorted order."""

    pairs: tuple[tuple[Path, Path], ...]

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[LabelledImage]:
        """Read pair after pair; nothing is kept.

        Raises:
            DatasetError: a file is unreadable, labels are no class ids, or the sizes of a pair differ.
        """
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> LabelledImage:
        """Read a pair, from 0; for errors see `__iter__`."""
        image, label = self.pairs[number]
        return LabelledImage(str(label), _read_image(image), read_labels(label))


def labelled_folder(images: Path | str, labels: Path | str) -> LabelledFolder:
    """Match the files of two folders. Hidden files and those of other endings are passed over.

    Labels are PNG: one channel of 8 bits holding class ids, or an indexed palette whose indices are class ids.

    Raises:
        DatasetError: a folder is missing or has no pictures, two files share a name, or one has no partner.
    """
    image_files = _by_stem(Path(images), IMAGE_SUFFIXES)
    label_files = _by_stem(Path(labels), LABEL_SUFFIXES)
    _check_partners(image_files, Path(labels), label_files, "labels")
    _check_partners(label_files, Path(images), image_files, "image")
    return LabelledFolder(tuple((path, label_files[stem]) for stem, path in sorted(image_files.items())))


def _check_partners(files: dict[str, Path], folder: Path, partners: Collection[str], kind: str) -> None:
    alone = sorted(stem for stem in files if stem not in partners)
    if alone:
        path = files[alone[0]]
        raise DatasetError(
            f"{folder}: no {kind} for {path.name}",
            f"{len(alone)} of {len(files)} files of {path.parent} alone",
            "Names have to be the same but for the ending: add what is missing, or remove the rest.",
        )


def _by_stem(folder: Path, suffixes: Collection[str]) -> dict[str, Path]:
    if not folder.is_dir():
        raise DatasetError(
            f"{folder}: there is no such folder", "a file" if folder.exists() else "nothing", "Check the path."
        )
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes and path.name[0] != ".")
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be listed", error.strerror or "", "Check its permissions.") from error
    if not paths:
        known = ", ".join(sorted(suffixes))
        raise DatasetError(f"{folder}: no pictures", f"no file that ends in {known}", "Check the path.")
    files: dict[str, Path] = {}
    for path in paths:
        if path.stem in files:
            raise DatasetError(
                f"{folder}: two files of one name", f"{files[path.stem].name} and {path.name}", "Remove one."
            )
        files[path.stem] = path
    return files


def _read_image(path: Path) -> Image:
    data = _content_of(path)
    image = image_from_bytes(data)
    if image is None:
        raise DatasetError(f"{path}: not a picture, or a damaged one", f"{len(data)} bytes", "Copy it again.")
    return image


def read_labels(path: Path) -> ClassMap:
    """Class ids from a PNG, (H, W) uint8: its gray values of 8 bits, or the indices of its palette.

    Raises:
        DatasetError: unreadable, or neither of the two.
    """
    import av

    data = _content_of(path)
    _check_header(path, data)
    try:
        # OpenCV resolves a palette to colours; FFmpeg keeps the indices. Read from memory, because FFmpeg takes some
        # file names for patterns.
        with av.open(io.BytesIO(data), format="png_pipe") as container:
            frame = next(container.decode(video=0))
            ids = frame.to_ndarray()[0] if frame.format.name == "pal8" else frame.to_ndarray()
    except (OSError, StopIteration, ValueError, av.FFmpegError) as error:
        raise DatasetError(f"{path}: a damaged PNG, or one with transparency", f"{len(data)} bytes") from error
    return np.ascontiguousarray(ids)


def _check_header(path: Path, data: bytes) -> None:
    # PNG specification, third edition, 11.2.1: IHDR is the first chunk; its bytes 8 and 9 are bit depth and colour
    # type. A decoder spreads gray of 1, 2 or 4 bits over 0..255, so its values are no ids.
    if not data.startswith(_PNG_SIGNATURE) or len(data) < 33:
        raise DatasetError(f"{path}: not a PNG file, or a damaged one", f"{len(data)} bytes", "Save labels as PNG.")
    bits, color = data[24], data[25]
    if color != 3 and (bits, color) != (8, 0):
        raise DatasetError(
            f"{path}: labels are gray of 8 bits, or a palette",
            f"{_PNG_COLORS.get(color, 'unknown')}, {bits} bits a channel",
            "Save class ids, not colours.",
        )


def _content_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read", error.strerror or "", "Check the file.") from error
