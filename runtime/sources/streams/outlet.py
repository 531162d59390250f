"""The way from a process that decodes to the one that wants its pictures.

Nothing but Python's own library, and no syntax newer than Python 3.8: the system's Python runs this too.
"""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from vidseg.runtime.sources.streams.shared_pictures import SharedPictures

PLACES = 3
"""One that is being written, one that waits, one that is being read."""

NICE = 3
"""What is decoded has to be inferred as well: where there is too little of the processor, that goes first."""

MAX_SIDE_PX = 16384
MAX_TEXT = 1000
_REQUEST_BYTES = 1 << 15
"""As in `messages`, which says what the messages mean."""


class Outlet:
    """The socket, and the memory with the pictures.

    Args:
        descriptor: of the socket that leads to the reader.
        at_end: what has to be done before the process ends because the reader is gone. It may not wait for anything.
    """

    def __init__(self, descriptor: int, at_end: Callable[[], None] = lambda: None) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a terminal and systemd send them to all; the reader ends this one
        os.nice(NICE)
        self._connection = socket.socket(fileno=descriptor)
        self._at_end = at_end
        self._lock = threading.Lock()
        self._memory: SharedPictures | None = None
        self._size_wh = (0, 0)
        self._free: deque[int] = deque()
        self._generation = 0

    def request(self) -> bytes:
        """What is to be opened; then a thread takes back places, and ends the process with the socket."""
        request = self._connection.recv(_REQUEST_BYTES)
        threading.Thread(target=self._take_back, daemon=True).start()
        return request

    def ready(self) -> None:
        """What opens and decodes is loaded: see `messages.Ready`."""
        self._say({"type": "ready"})

    def show(
        self,
        size_wh: tuple[int, int],
        write: Callable[[memoryview], None],
        index: int,
        times_ns: tuple[int, int | None],
    ) -> None:
        """Give a picture on, or leave it out where no place is free.

        Args:
            size_wh: in pixels.
            write: puts the picture, (h, w, 3) uint8 BGR, into the memory that it is given.
            index: of the picture.
            times_ns: when it was decoded, on the monotonic clock, and its time in the stream, if there is one.

        Raises:
            ValueError: it is too large.
            OSError: there is no memory for it.
        """
        if size_wh != self._size_wh:
            self._make_room(size_wh)
        with self._lock:
            place = self._free.popleft() if self._free else None
        if place is None:
            return
        assert self._memory is not None
        with self._memory.place(place) as shared:
            write(shared)
        decoded_ns, stamp_ns = times_ns
        self._say({"type": "picture", "place": place, "index": index, "decoded_ns": decoded_ns, "stamp_ns": stamp_ns})

    def bad(self, index: int, text: str) -> None:
        """A picture was damaged."""
        self._say({"type": "bad", "index": index, "text": _short(text)})

    def ended(self, why: str, text: str, do: str = "") -> None:
        """No more pictures come: see `messages.Ended`."""
        self._say({"type": "ended", "why": why, "text": _short(text), "do": do})

    def _say(self, message: dict[str, Any], descriptor: int | None = None) -> None:
        rights = [] if descriptor is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
        text = json.dumps(message, ensure_ascii=False)
        self._connection.sendmsg([text.encode("utf-8", "replace")], rights)

    def _make_room(self, size_wh: tuple[int, int]) -> None:
        if max(size_wh) > MAX_SIDE_PX:
            raise ValueError(f"pictures of {size_wh[0]}x{size_wh[1]}")
        if self._memory is not None:
            self._memory.close()
        self._memory = SharedPictures.create(size_wh, PLACES)
        with self._lock:
            self._size_wh = size_wh
            self._generation = (self._generation + 1) % 16
            self._free = deque(range(PLACES))
        width, height = size_wh
        self._say({"type": "buffers", "width": width, "height": height, "count": PLACES}, self._memory.descriptor)

    def _take_back(self) -> None:
        """A byte for each place that is free again: its number, and in the upper half, of which memory."""
        try:
            while True:
                given_back = self._connection.recv(1)
                if not given_back:
                    break
                generation, place = divmod(given_back[0], 16)
                with self._lock:
                    if generation == self._generation:
                        self._free.append(place)
        finally:
            try:
                self._at_end()
            finally:
                os._exit(0)  # whoever read is gone; the library that decodes may wait for ever


def _short(text: str) -> str:
    """A text that may be sent. None is cut: half a password is not recognized as one."""
    return text if len(text) <= MAX_TEXT else f"an error of {len(text)} characters"
