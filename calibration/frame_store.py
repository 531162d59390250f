"""`FrameStore`: frames on disk, so that memory does not grow with their number."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidseg.runtime.errors import ConfigurationError
from vidseg.runtime.frame import Image


class FrameStore:
    """A temporary folder of frames, each as it lies on the model's input, raw: H x W x 3 bytes.

    Frames are read file by file; a memory map would count as the process's memory. A context manager: leaving it
    removes the folder.

    Args:
        fit: lays a frame of any size on the model's input, (H, W, 3) uint8 BGR to (h, w, 3) uint8.
        parent: where the folder is made; None for the system's place (`TMPDIR`).

    Raises:
        ConfigurationError: the folder cannot be made.
    """

    def __init__(self, fit: Callable[[Image], Image], parent: Path | None = None) -> None:
        self._fit = fit
        try:
            self._scratch = tempfile.TemporaryDirectory(prefix="vidseg-frames-", dir=parent, ignore_cleanup_errors=True)
        except OSError as error:
            place = parent or tempfile.gettempdir()
            raise ConfigurationError(f"{place}: no folder for frames can be made", error.strerror or "") from error
        self._folder = Path(self._scratch.name)
        self._files: list[tuple[Path, tuple[int, ...]]] = []
        self._appended = 0

    def append(self, image: Image) -> None:
        """Fit a frame and write it behind the others.

        Raises:
            ConfigurationError: the disk is full.
        """
        fitted = np.ascontiguousarray(self._fit(image))
        path = self._folder / f"{self._appended:06}.raw"
        try:
            path.write_bytes(fitted.data)
        except OSError as error:
            path.unlink(missing_ok=True)
            do = "Free some space, or set TMPDIR to a folder that has more."
            raise ConfigurationError(f"{path.parent}: frames cannot be kept", error.strerror or "", do) from error
        self._appended += 1
        self._files.append((path, fitted.shape))

    def keep(self, positions: Sequence[int]) -> None:
        """Remove all frames but those at `positions`, which become 0, 1, ... in that order."""
        kept = [self._files[position] for position in positions]
        for path, _ in set(self._files) - set(kept):
            path.unlink()
        self._files = kept

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, position: int) -> Image:
        """A frame, (h, w, 3) uint8, read anew by each call; it is the caller's."""
        path, shape = self._files[position]
        return np.fromfile(path, np.uint8).reshape(shape)

    def __iter__(self) -> Iterator[Image]:
        """Frame after frame."""
        return (self[position] for position in range(len(self)))

    def close(self) -> None:
        """Remove the folder. Idempotent."""
        self._scratch.cleanup()
        self._files = []

    def __enter__(self) -> FrameStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True, eq=False)
class StoredFrames:
    """Some frames of a store, which can be gone through again and again while the store is open.

    Attributes:
        store: where they are.
        positions: in the store, in the order in which they are given.
    """

    store: FrameStore
    positions: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, number: int) -> Image:
        return self.store[self.positions[number]]

    def __iter__(self) -> Iterator[Image]:
        return (self.store[position] for position in self.positions)

    def sha256(self) -> str:
        """Of all pixels in order, frame after frame; hexadecimal. Reads them all."""
        digest = hashlib.sha256()
        for image in self:
            digest.update(image.data)
        return digest.hexdigest()
