"""The process that decodes, from outside: starting it, its pictures, and its end."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec
import numpy as np

from vidseg.runtime.frame import Image
from vidseg.runtime.sources.streams.messages import (
    MAX_PACKET_BYTES,
    BadPicture,
    Buffers,
    Ended,
    Message,
    Picture,
    Request,
)
from vidseg.runtime.sources.streams.shared_pictures import SharedPictures

POLL_S = 0.1
"""How soon a stop is seen."""

END_S = 2.0
"""How long the system may take to end a process that was killed; one in the middle of a device's call takes longer."""

_KEPT_STDERR = 2000


class DecoderProcess:
    """A process that opens one stream. `close()` kills it; idempotent.

    Args:
        module: its name; see `ffmpeg_child` for what it has to do.
        request: what to open. Its address is in no argument and no environment.
        clean: takes what is secret out of a text of the process.
    """

    def __init__(self, module: str, request: Request, clean: Callable[[str], str]) -> None:
        self._clean = clean
        self._generation = 0
        self._shape = (0, 0, 3)
        self._memory: SharedPictures | None = None
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._poll = select.poll()  # `select` takes no descriptors over 1023
        self._poll.register(self._connection, select.POLLIN)
        self._stderr = os.memfd_create("stderr", os.MFD_CLOEXEC)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-m", module, str(theirs.fileno())],
                cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._stderr,
                pass_fds=[theirs.fileno()], start_new_session=True,
            )  # fmt: skip
        with suppress(OSError):  # it has ended already: the next read says why
            self._connection.send(msgspec.json.encode(request))

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def next(self, timeout_s: float, stop: threading.Event) -> tuple[Picture, Image] | BadPicture | Ended | None:
        """What comes next: a picture, (h, w, 3) uint8 BGR, of the caller's own; None when stopped or for nothing."""
        deadline = time.monotonic() + timeout_s
        while not stop.is_set():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return None
            if self._poll.poll(min(left_s, POLL_S) * 1000) and (found := self._received()) is not None:
                return found
        return None

    def close(self) -> None:
        """Kill it, and give back all that it had here."""
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)
        self._connection.close()
        if self._memory is not None:
            self._memory.close()
            self._memory = None
        if self._stderr >= 0:
            os.close(self._stderr)
            self._stderr = -1

    def _received(self) -> tuple[Picture, Image] | BadPicture | Ended | None:
        """A message; None for one that was for this object itself. Whatever is wrong with it is the stream's end."""
        try:
            packet, descriptors, _, _ = socket.recv_fds(self._connection, MAX_PACKET_BYTES, 1)
        except OSError:  # the connection was reset
            packet, descriptors = b"", []
        if not packet:
            return Ended("lost", self._last_words())
        try:
            message = msgspec.json.decode(packet, type=Message)
            if isinstance(message, Buffers):
                self._take_memory(message, descriptors)
                return None
            if isinstance(message, Picture):
                return message, self._picture(message.place)
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            return Ended("lost", f"its decoder makes no sense: {error}")
        if isinstance(message, Ended):
            return Ended(message.why, self._clean(message.text))
        return BadPicture(message.index, self._clean(message.text))

    def _take_memory(self, message: Buffers, descriptors: list[int]) -> None:
        if len(descriptors) != 1:
            raise ValueError("memory without a descriptor")
        if self._memory is not None:
            self._memory.close()
            self._memory = None
        self._memory = SharedPictures.attach(descriptors[0], (message.width, message.height), message.count)
        self._shape = (message.height, message.width, 3)
        self._generation = (self._generation + 1) % 16

    def _picture(self, place: int) -> Image:
        if self._memory is None:
            raise ValueError("a picture without memory")
        with self._memory.place(place) as shared:
            image: Image = np.frombuffer(shared, np.uint8).reshape(self._shape).copy()
        with suppress(OSError):
            self._connection.send(bytes([self._generation * 16 + place]))
        return image

    def _last_words(self) -> str:
        """What the process printed last, or how it ended."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)
        size = os.fstat(self._stderr).st_size
        said = os.pread(self._stderr, _KEPT_STDERR, max(size - _KEPT_STDERR, 0)).decode(errors="replace").split("\n")
        lines = [line.strip() for line in said if line.strip()]
        code = self._process.returncode
        return f"its decoder ended with code {code}" + (f", {self._clean(lines[-1])[:300]}" if lines else "")
