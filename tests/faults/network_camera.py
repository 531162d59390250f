"""A camera behind a network that does what a test says: freezes, cuts, swallows, or damages what is sent."""

from __future__ import annotations

import random
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Literal, TypeAlias

from tests.media import moving_blocks, write_video

Mood: TypeAlias = Literal["well", "frozen", "black_hole", "gone", "damaged"]

RATE = 15
SECONDS = 60
SIZE_WH = (96, 64)
STEP_S = 1 / 30
DAMAGED_SHARE = 0.002
"""Of the bytes, while it is damaged."""


@cache
def content() -> bytes:
    """A minute of an MPEG transport stream, a key frame each half second."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "camera.ts")
        options = {"g": str(RATE // 2), "bf": "0", "preset": "ultrafast", "tune": "zerolatency"}
        pictures = moving_blocks(RATE * SECONDS, SIZE_WH)
        write_video(path, pictures, rate=RATE, muxer="mpegts", codec_options=options)
        return path.read_bytes()


@dataclass(slots=True, eq=False)
class _Viewer:
    connection: socket.socket
    sent: int = 0
    thread: threading.Thread = field(init=False)


class NetworkCamera:
    """Serves tcp://127.0.0.1:PORT, at the rate of a camera; a new connection begins at the beginning.

    `mood` is `well`, or: `frozen`: connections stay, nothing comes; `black_hole`: nothing is answered, new connections
    neither; `gone`: connections are reset, new ones refused; `damaged`: some bytes are others.

    Args:
        seed: of the damage.
    """

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._changed = threading.Condition()
        self._mood: Mood = "well"
        self._closed = self._is_accepting = False
        self._viewers: list[_Viewer] = []
        self._fillers: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._accept, name="network camera", daemon=True)

    @property
    def uri(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def __enter__(self) -> NetworkCamera:
        content()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._stop_listening()
        self._hang_up()
        self._thread.join(10)

    def be(self, mood: Mood) -> None:
        """Change how it is."""
        with self._changed:
            before, self._mood = self._mood, mood
            self._changed.notify_all()
            if mood == "black_hole":
                self._changed.wait_for(lambda: not self._is_accepting)
        if before == "gone" and mood != "gone":
            self._listener = socket.create_server(("127.0.0.1", self.port), backlog=0)
        if before == "black_hole":
            self._drain_fillers()
        with self._changed:
            self._changed.notify_all()
        if mood == "gone":
            self._stop_listening()
            self._hang_up()
        elif mood == "black_hole":
            self._fill()

    def _accept(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._mood not in {"gone", "black_hole"})
                if self._closed:
                    return
                listener, self._is_accepting = self._listener, True
            try:
                listener.settimeout(0.1)
                connection, _ = listener.accept()
            except OSError:  # nobody came, or it has just been closed
                continue
            finally:
                with self._changed:
                    self._is_accepting = False
                    self._changed.notify_all()
            viewer = _Viewer(connection)
            viewer.thread = threading.Thread(target=self._serve, args=(viewer,), daemon=True)
            with self._changed:
                self._viewers.append(viewer)
            viewer.thread.start()

    def _serve(self, viewer: _Viewer) -> None:
        stream = content()
        step = round(len(stream) / SECONDS * STEP_S)
        viewer.connection.settimeout(5)
        with suppress(OSError):
            while viewer.sent < len(stream):
                with self._changed:
                    self._changed.wait_for(lambda: self._closed or self._mood not in {"frozen", "black_hole"})
                    if self._closed:
                        return
                    damaged = self._mood == "damaged"
                piece = stream[viewer.sent : viewer.sent + step]
                viewer.connection.sendall(self._damaged(piece) if damaged else piece)
                viewer.sent += step
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, STEP_S)
        viewer.connection.close()

    def _damaged(self, piece: bytes) -> bytes:
        found = bytearray(piece)
        for place in range(len(found)):
            if self._random.random() < DAMAGED_SHARE:
                found[place] = self._random.randrange(256)
        return bytes(found)

    def _fill(self) -> None:
        """Take every place in the queue of those who wait: the system answers no further ones."""
        while True:
            filler = socket.socket()
            filler.settimeout(0.2)
            try:
                filler.connect(("127.0.0.1", self.port))
            except TimeoutError:
                filler.close()
                return
            self._fillers.append(filler)

    def _drain_fillers(self) -> None:
        fillers, self._fillers = self._fillers, []
        for filler in fillers:
            filler.close()

    def _stop_listening(self) -> None:
        self._drain_fillers()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _hang_up(self) -> None:
        with self._changed:
            viewers, self._viewers = self._viewers, []
        for viewer in viewers:
            with suppress(OSError):
                viewer.connection.shutdown(socket.SHUT_RDWR)
            viewer.thread.join(10)
