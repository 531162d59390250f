"""`FolderSource`: the images of a folder, or a single one."""

from __future__ import annotations

import re
import threading
from pathlib import Path

from vidseg.runtime.clock import Clock
from vidseg.runtime.errors import FrameError, SourceOpenError
from vidseg.runtime.frame import Frame, Image
from vidseg.runtime.sources.image import IMAGE_SUFFIXES, image_from_bytes
from vidseg.runtime.sources.pacing import Pacer

INTERVAL_NS = 100_000_000
"""Images have no time of their own: they are stamped as ten a second, which an eye can follow."""


class FolderSource:
    """The images directly in a folder, in the order in which a person counts (2 before 10), or one image file.

    They come upright (EXIF orientation), as 8 bit BGR: of 16 bit samples the upper byte, of gray three equal channels,
    without transparency. Sizes may differ.

    Args:
        path: a folder, or an image; its text is the source's name.
        realtime: give ten images a second instead of as many as are read.
    """

    def __init__(self, path: str | Path, *, realtime: bool = False) -> None:
        self._path = Path(path)
        self._pacer = Pacer() if realtime else None
        self._files: list[Path] = []
        self._index = 0

    @property
    def name(self) -> str:
        """The path, as it was given."""
        return str(self._path)

    @property
    def live(self) -> bool:
        """False: a folder waits."""
        return False

    def open(self, clock: Clock, stop: threading.Event) -> None:
        """List the images; what is added later is not seen.

        Raises:
            SourceOpenError: there is no such folder, or no image in it.
        """
        self._clock = clock
        self._stop = stop
        self._files = _images_in(self._path)

    def read(self) -> Frame | None:
        """The next image; None at the end.

        Raises:
            FrameError: this one is damaged; the next call goes on.
        """
        if self._index >= len(self._files) or self._stop.is_set():
            return None
        index = self._index
        self._index += 1
        image = _read_image(self._files[index])
        stamp_ns = index * INTERVAL_NS
        if self._pacer is not None and not self._pacer.wait(stamp_ns, self._clock, self._stop):
            return None
        return Frame(self.name, 0, index, self._clock.now_ns(), stamp_ns, "pts", image)

    def close(self) -> None:
        """Nothing to let go of."""


def _read_image(path: Path) -> Image:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FrameError(f"{path} cannot be read", error.strerror or "", "It is left out.") from error
    image = image_from_bytes(data)
    if image is None:
        raise FrameError(f"{path} is no image, or damaged", f"{len(data)} bytes", "It is left out.")
    return image


def _images_in(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise SourceOpenError(f"{path}: there is no such file or folder", "", "Check the path.")
    try:
        entries = [file for file in path.iterdir() if file.is_file() and file.name[0] != "."]
    except OSError as error:
        raise SourceOpenError(f"{path} cannot be listed", error.strerror or "") from error
    files = [file for file in entries if file.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        known = ", ".join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))
        raise SourceOpenError(f"{path} has no image in it", f"{len(entries)} other files", f"It reads {known}.")
    return sorted(files, key=_counting_order)


def _counting_order(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Digits compare as numbers, letters without case; the name itself decides where that is equal."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name
