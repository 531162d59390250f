"""Pictures for browsers: JPEG for all viewers at once, a stream for each of them, class maps as PNG."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress

import cv2
import numpy as np

from vidseg.runtime.captions import draw_hud
from vidseg.runtime.clock import Clock
from vidseg.runtime.frame import Image, SourceState, SourceStatus
from vidseg.runtime.manifest import ClassSpec
from vidseg.runtime.overlay import Overlay, OverlayStyle
from vidseg.runtime.sinks.masks import indexed_png, palette_chunks
from vidseg.runtime.web.board import Board, Shown, Watch

JPEG_QUALITY = 80

MAX_VIEWERS = 32
"""Streams at a time."""

MIN_INTERVAL_S = 1 / 40
"""Between two pictures of one stream: a file may be inferred at hundreds of frames a second."""

BOUNDARY = "frame"
MEDIA_TYPE = f"multipart/x-mixed-replace; boundary={BOUNDARY}"

EMPTY_WH = (640, 360)
"""Of the picture that says why there is none."""

STATES: dict[SourceState, str] = {
    "opening": "is being opened since",
    "silent": "gives nothing since",
    "lost": "lost since",
    "refused": "refused since",
    "paused": "paused since",
    "removed": "removed since",
}
"""What the picture says of each state."""


class Encoder:
    """Encodes each picture and class map once, when somebody asks for it. Used by one thread, but for `picture`.

    Args:
        classes: for the palette of class maps.
        clock: for the time at which a source was lost.
        style: gives that of results which nobody has drawn, because nobody watched when they came.
    """

    def __init__(self, classes: Sequence[ClassSpec], clock: Clock, style: Callable[[], OverlayStyle]) -> None:
        self._clock = clock
        self._classes = classes
        self._style = style
        self._palette = palette_chunks(classes)
        self._jpegs: dict[str, tuple[int, bytes]] = {}
        self._pngs: dict[str, tuple[int, bytes]] = {}
        self.encoded = 0

    def picture(self, shown: Shown) -> Image:
        """What there is to see of a source, (H, W, 3) uint8 BGR; where it is lost, the last one in the dark with a line
        that says so. May be called from any thread.
        """
        picture = shown.picture
        if picture is None and shown.segmentation is not None:
            picture = Overlay(self._classes, self._style()).draw(shown.segmentation)
        return picture if picture is not None and shown.status is None else self._dimmed(picture, shown.status)

    def jpeg(self, name: str, shown: Shown) -> bytes:
        """The same as JPEG."""
        return self._once(self._jpegs, name, shown.version, lambda: self._encode_jpeg(shown))

    def class_map_png(self, name: str, shown: Shown) -> bytes | None:
        """The class map at frame size, indexed; None where there was no result."""
        segmentation = shown.segmentation
        if segmentation is None:
            return None
        return self._once(
            self._pngs, name, shown.version, lambda: indexed_png(segmentation.at_frame_size(), self._palette)
        )

    def keep_only(self, names: Collection[str]) -> None:
        """Forget what was encoded of sources that are not among these."""
        for cache in (self._jpegs, self._pngs):
            for name in cache.keys() - set(names):
                del cache[name]

    def _once(self, cache: dict[str, tuple[int, bytes]], name: str, version: int, encode: Callable[[], bytes]) -> bytes:
        if name not in cache or cache[name][0] != version:
            cache[name] = (version, encode())
        return cache[name][1]

    def _encode_jpeg(self, shown: Shown) -> bytes:
        self.encoded += 1
        return cv2.imencode(".jpg", self.picture(shown), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()

    def _dimmed(self, picture: Image | None, status: SourceStatus | None) -> Image:
        dark = np.zeros((EMPTY_WH[1], EMPTY_WH[0], 3), np.uint8) if picture is None else picture // np.uint8(4)
        line = "no picture yet"
        if status is not None:
            since_s = (self._clock.wall_ns() - self._clock.now_ns() + status.since_ns) / 1e9
            line = f"camera {STATES[status.state]} {time.strftime('%H:%M:%S', time.localtime(since_s))}"
        draw_hud(dark, [line])
        return dark


class Viewers:
    """Streams of pictures. Each viewer gets the newest one when the one before is out. Used by one thread.

    Args:
        board: where the pictures come from.
        encoder: for all viewers.
    """

    def __init__(self, board: Board, encoder: Encoder) -> None:
        self._board = board
        self.encoder = encoder
        self.count = 0

    @property
    def full(self) -> bool:
        """True where no more viewers are taken."""
        return self.count >= MAX_VIEWERS

    async def stream(self, name: str) -> AsyncGenerator[bytes, None]:
        """The body of a `multipart/x-mixed-replace` of a source, until that is removed.

        Each part ends with the boundary of the next one: browsers show a part only when they have seen that.
        """
        self.count += 1
        try:
            changed = asyncio.Event()
            with changes_of(self._board, name, changed) as watch:
                yield f"--{BOUNDARY}\r\n".encode()
                version = 0
                while not watch.has_ended:
                    changed.clear()
                    shown = self._board.shown(name)
                    if shown.version != version:
                        version = shown.version
                        yield _part(self.encoder.jpeg(name, shown))
                        yield b""  # nothing to send: comes back when what was sent is out
                        await asyncio.sleep(MIN_INTERVAL_S)
                    await changed.wait()
        finally:
            self.count -= 1


@contextmanager
def changes_of(board: Board, name: str, changed: asyncio.Event) -> Iterator[Watch]:
    """Have an event set, in the loop that runs, at each change of a source, and when it was removed."""
    loop = asyncio.get_running_loop()

    def wake() -> None:
        with suppress(RuntimeError):  # the loop has ended in the meantime
            loop.call_soon_threadsafe(changed.set)

    with board.watched(name, wake) as watch:
        yield watch


def _part(jpeg: bytes) -> bytes:
    head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
    return b"".join((head.encode(), jpeg, f"\r\n--{BOUNDARY}\r\n".encode()))
