"""`Video`: the pictures of a source as H.264, encoded once for all who watch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from math import ceil, sqrt
from typing import TYPE_CHECKING, TypeAlias, cast

import cv2
import numpy as np

from vidseg.runtime.frame import Image
from vidseg.runtime.sinks.mp4 import NOMINAL_RATE, configure, encodable
from vidseg.runtime.web.board import Board, Shown
from vidseg.runtime.web.pictures import Encoder, changes_of

if TYPE_CHECKING:
    from av import Packet
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

    VideoPacket: TypeAlias = Packet[VideoStream]

ENCODER = "libx264"
ENCODER_OPTIONS = {
    "preset": "ultrafast", "tune": "zerolatency", "profile": "baseline", "level": "3.1", "crf": "26",
    "maxrate": "4000000", "bufsize": "2000000", "forced-idr": "1",
}  # fmt: skip
"""On 1280x720, one core: ultrafast 7 ms and 7 KiB a picture, superfast 14 ms and 8 KiB; a JPEG 3.4 ms and 79 KiB."""

MAX_MACROBLOCKS = 3600
"""Of a picture at level 3.1 (ITU-T H.264, table A-1), which every browser decodes (RFC 7742, 6.2): 1280x720."""

MIN_INTERVAL_S = 1 / 30
"""Between two pictures: the most that level 3.1 allows for the largest."""

KEYFRAME_INTERVAL_S = 2.0
"""As long as a viewer may wait that has lost what could not be sent again. So often a picture that stays is sent too:
where the one of a camera that rests was lost, nothing behind it would tell the viewer that there was one."""

MAX_WAITING = 8
"""Pictures that wait for one viewer: half a second at 15 a second. Behind them it is given a new start."""


class VideoEncoder:
    """Encodes pictures of one size, each at once, in one thread. Only where it `can_encode`.

    Args:
        size_wh: of the pictures.
    """

    def __init__(self, size_wh: tuple[int, int]) -> None:
        from av import CodecContext
        from av.video.reformatter import VideoReformatter

        self.size_wh = size_wh
        self._video_wh = video_size(size_wh)
        self._context = cast("VideoCodecContext", CodecContext.create(ENCODER, "w"))
        configure(self._context, self._video_wh, has_quality=True)
        self._context.thread_count = 1
        self._context.framerate = Fraction(NOMINAL_RATE)
        self._context.options = dict(ENCODER_OPTIONS)
        self._reformatter = VideoReformatter()
        self._next_keyframe_ns = 0

    def encode(self, picture: Image, time_ns: int, *, keyframe: bool = False) -> list[VideoPacket]:
        """Encode one picture.

        Args:
            picture: (H, W, 3) uint8 BGR, of the size that was announced.
            time_ns: larger than the one before.
            keyframe: somebody begins to watch here.

        Raises:
            FFmpegError: the encoder has failed.
        """
        from av.video.frame import PictureType

        if self._video_wh != self.size_wh:
            picture = cv2.resize(picture, self._video_wh, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        frame = encodable(self._reformatter, np.ascontiguousarray(picture), time_ns)
        if keyframe or time_ns >= self._next_keyframe_ns:
            frame.pict_type = PictureType.I
            self._next_keyframe_ns = time_ns + round(KEYFRAME_INTERVAL_S * 1e9)
        return self._context.encode(frame)


class VideoViewer:
    """What waits for one who watches: from a keyframe on, and after it fell behind from the next one on.

    Args:
        on_begin: called at the first `get`.
    """

    def __init__(self, on_begin: Callable[[], None]) -> None:
        self._on_begin = on_begin
        self._packets: deque[VideoPacket] = deque()
        self._arrived = asyncio.Event()
        self._needs_keyframe = True
        self.has_begun = False

    def put(self, packets: list[VideoPacket]) -> None:
        """Add a picture, where somebody takes them. Returns at once."""
        if len(self._packets) + len(packets) > MAX_WAITING:
            self._packets.clear()
            self._needs_keyframe = True
        for packet in packets:
            self._needs_keyframe = self._needs_keyframe and not packet.is_keyframe
            if self.has_begun and not self._needs_keyframe:
                self._packets.append(packet)
                self._arrived.set()

    async def get(self) -> VideoPacket:
        """The next one."""
        if not self.has_begun:
            self.has_begun = True
            self._on_begin()
        while not self._packets:
            self._arrived.clear()
            await self._arrived.wait()
        return self._packets.popleft()


class Video:
    """One source's pictures for those who watch by WebRTC. Used by one thread, where its loop runs.

    Args:
        name: of the source.
        board: where the pictures come from.
        encoder: draws what is to be seen.
    """

    def __init__(self, name: str, board: Board, encoder: Encoder) -> None:
        self._name = name
        self._board = board
        self._pictures = encoder
        self._viewers: set[VideoViewer] = set()
        self._encoder: VideoEncoder | None = None
        self._wants_keyframe = False
        self._changed = asyncio.Event()
        self.encoded = 0

    @property
    def has_viewers(self) -> bool:
        """True while there are any, whether or not they have begun."""
        return bool(self._viewers)

    @contextmanager
    def watched(self) -> Iterator[VideoViewer]:
        """A viewer: what is to be seen comes at once when it begins."""
        viewer = VideoViewer(self._begin)
        self._viewers.add(viewer)
        try:
            yield viewer
        finally:
            self._viewers.discard(viewer)

    def _begin(self) -> None:
        self._wants_keyframe = True
        self._changed.set()

    async def encode(self) -> None:
        """Encode each picture that is new when the one before is done, and one that stays every two seconds, until the
        source is removed; none where nobody takes them.

        Raises:
            FFmpegError: the encoder has failed.
        """
        loop = asyncio.get_running_loop()
        started, version = loop.time(), 0
        with changes_of(self._board, self._name, self._changed) as watch:
            while not watch.has_ended:
                stays = not self._changed.is_set()
                self._changed.clear()
                shown, keyframe = self._board.shown(self._name), self._wants_keyframe
                is_wanted = any(viewer.has_begun for viewer in self._viewers)
                if is_wanted and (shown.version != version or keyframe or stays):
                    version, self._wants_keyframe = shown.version, False
                    begun = loop.time()
                    time_ns = round((begun - started) * 1e9)
                    packets = await asyncio.to_thread(self._encode, shown, time_ns, keyframe=keyframe)
                    for viewer in self._viewers:
                        viewer.put(packets)
                    await asyncio.sleep(begun + MIN_INTERVAL_S - loop.time())
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), KEYFRAME_INTERVAL_S)

    def _encode(self, shown: Shown, time_ns: int, *, keyframe: bool) -> list[VideoPacket]:
        picture = self._pictures.picture(shown)
        size_wh = (picture.shape[1], picture.shape[0])
        if self._encoder is None or self._encoder.size_wh != size_wh:
            self._encoder = VideoEncoder(size_wh)
        self.encoded += 1
        return self._encoder.encode(picture, time_ns, keyframe=keyframe)


def can_encode() -> bool:
    """True where PyAV has the encoder; the packages on PyPI do."""
    from av.codec import Codec
    from av.codec.codec import UnknownCodecError

    with suppress(UnknownCodecError):
        Codec(ENCODER, "w")
        return True
    return False


def video_size(size_wh: tuple[int, int]) -> tuple[int, int]:
    """The size in which a picture is sent: even, and scaled down where it has more than `MAX_MACROBLOCKS`."""
    width, height = size_wh
    scale = min(sqrt(MAX_MACROBLOCKS * 256 / (width * height)), 1.0)
    while True:
        sent_wh = (max(2 * round(width * scale / 2), 2), max(2 * round(height * scale / 2), 2))
        if ceil(sent_wh[0] / 16) * ceil(sent_wh[1] / 16) <= MAX_MACROBLOCKS:
            return sent_wh
        scale *= 0.995
