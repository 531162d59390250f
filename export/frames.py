"""Frames to check a model on: spread over a video, a folder or the rendered street."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Protocol, TypeVar

from vidseg.calibration.candidates import StillClock
from vidseg.runtime.bundle import sha256_of
from vidseg.runtime.errors import FrameError, SourceOpenError, UsageError
from vidseg.runtime.frame import Image
from vidseg.runtime.sources import Source
from vidseg.runtime.sources.opening import source_from_uri

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Indexed(Protocol[T_co]):
    """What has a length and items by number."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> T_co: ...


STREET_URI = "scene://street?pace=max&fps=0.5&frames=16"
"""Used where nobody gives frames: 16 pictures two seconds apart."""

MAX_FRAMES_READ = 3000


@dataclass(frozen=True, slots=True, eq=False)
class CheckFrames:
    """Frames as they come from a source.

    Attributes:
        images: (H, W, 3) uint8 BGR each, sizes may differ.
        source: the URI, for the record.
    """

    images: tuple[Image, ...]
    source: str

    @property
    def sha256(self) -> str:
        """Of all pixels in order."""
        return sha256_of(b"".join(image.tobytes() for image in self.images))


def spread_frames(uri: str, count: int) -> CheckFrames:
    """Read `count` frames, or as many as there are, evenly spread over the first 3000 of a source.

    Memory stays at twice `count` frames: each time that many are held, every second one is let go.

    Raises:
        SourceOpenError: there is no frame.
        UsageError: the source is live.
    """
    source = source_from_uri(uri)
    if source.live:
        do = "Give a file, or record frames of it with vidseg record-calib."
        raise UsageError(f"{uri}: a live source cannot be read twice the same", "a live source", do)
    try:
        source.open(StillClock(), threading.Event())
        kept = _thinned(source, count)
    finally:
        source.close()
    if not kept:
        raise SourceOpenError(f"{uri}: there is no frame to check the model on", "none")
    return CheckFrames(tuple(every(kept, count)), uri)


def every(items: Indexed[T], count: int) -> list[T]:
    """At most `count` of the items, evenly spread, the first among them."""
    count = min(count, len(items))
    return [items[number * len(items) // count] for number in range(count)]


def _thinned(source: Source, count: int) -> list[Image]:
    kept: list[Image] = []
    stride = 1
    for number in range(MAX_FRAMES_READ):
        try:
            frame = source.read()
        except FrameError:
            continue
        if frame is None:
            break
        if number % stride == 0:
            kept.append(frame.image)
        if len(kept) == 2 * count:
            kept, stride = kept[::2], stride * 2
    return kept
