"""The process that decodes, from outside: starting it, its pictures, and its end."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeAlias

import msgspec
import numpy as np

from vidseg.runtime.frame import Image
from vidseg.runtime.sources.streams.messages import (
    MAX_PACKET_BYTES,
    BadPicture,
    Buffers,
    Ended,
    LaunchRequest,
    Message,
    Picture,
    Ready,
    Request,
)
from vidseg.runtime.sources.streams.outlet import PLACES
from vidseg.runtime.sources.streams.shared_pictures import SharedPictures

POLL_S = 0.1
"""How soon a stop is seen."""

END_S = 2.0
"""How long the system may take to end a process that was killed; one in the middle of a device's call takes longer."""

STALE_NS = 200_000_000
"""A picture that its reader left for so long is left out: the reader is late, and newer ones find no place."""

_KEPT_STDERR = 2000
_MAX_TEXT = 300
_MAX_STDERR = 1 << 20
"""A library that warns of every picture fills no memory in months."""

_LOOK_EVERY = 256
"""Messages between two looks at that."""


_NO_SENSE = "its decoder makes no sense"

_Found: TypeAlias = "Ready | tuple[Picture, Image] | BadPicture | Ended"


class DecoderProcess:
    """A process that opens one stream. `close()` ends it; idempotent.

    Args:
        command: what starts it, up to the descriptor of its socket; see `ffmpeg_child` for what it has to do.
        request: what to open. Its address is in no argument and no environment.
        clean: takes what is secret out of a text of the process.
        grace_s: how long it may take to let go of its device before it is killed.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        request: Request | LaunchRequest,
        clean: Callable[[str], str],
        *,
        grace_s: float = 0.0,
    ) -> None:
        self._clean = clean
        self._grace_s = grace_s
        self._generation = self._received_messages = self._left_out = 0
        self._shape = (0, 0, 3)
        self._memory: SharedPictures | None = None
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._poll = select.poll()  # `select` takes no descriptors over 1023
        self._poll.register(self._connection, select.POLLIN)
        self._stderr = os.memfd_create("stderr", os.MFD_CLOEXEC)
        fcntl.fcntl(self._stderr, fcntl.F_SETFL, os.O_APPEND)
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - our own command
                    [*command, str(theirs.fileno())],
                    cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._stderr,
                    pass_fds=[theirs.fileno()],
                )  # fmt: skip
        except BaseException:
            self._connection.close()
            os.close(self._stderr)
            raise
        with suppress(OSError):  # it has ended already: the next read says why
            self._connection.send(msgspec.json.encode(request))

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def await_ready(self, timeout_s: float, stop: threading.Event) -> Ended | None:
        """Wait until it is loaded: with many cameras on few cores that takes longer than opening a stream does.

        Returns why that never comes; None where it is ready, or stopped.
        """
        found = self._next(timeout_s, stop)
        if found is None or isinstance(found, Ready):
            return None if found or stop.is_set() else Ended("lost", f"its decoder does not start in {timeout_s:g} s")
        return found if isinstance(found, Ended) else Ended("lost", _NO_SENSE)

    def next(self, timeout_s: float, stop: threading.Event) -> tuple[Picture, Image] | BadPicture | Ended | None:
        """What comes next: a picture, (h, w, 3) uint8 BGR, of the caller's own; None when stopped or for nothing."""
        found = self._next(timeout_s, stop)
        return Ended("lost", _NO_SENSE) if isinstance(found, Ready) else found

    def _next(self, timeout_s: float, stop: threading.Event) -> _Found | None:
        deadline = time.monotonic() + timeout_s
        while not stop.is_set():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return None
            if self._poll.poll(min(left_s, POLL_S) * 1000) and (found := self._received()) is not None:
                return found
        return None

    def close(self) -> None:
        """End it, and give back all that it had here."""
        with suppress(OSError):  # it may be gone already
            self._connection.shutdown(socket.SHUT_RDWR)
        if self._grace_s:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(self._grace_s)
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

    def _received(self) -> _Found | None:
        """A message; None for one that was for this object itself. Whatever is wrong with it is the stream's end."""
        packet, descriptors = self._packet()
        if not packet:
            return Ended("lost", self._last_words())
        try:
            return self._understood(msgspec.json.decode(packet, type=Message), descriptors)
        except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            return Ended("lost", f"{_NO_SENSE}: {self._clean(str(error))[:_MAX_TEXT]}")
        finally:
            for descriptor in descriptors:  # what nobody took
                os.close(descriptor)

    def _packet(self) -> tuple[bytes, list[int]]:
        """The next one; empty at the end."""
        for _ in range(2):  # a process that ended with unread bytes resets the connection; what it said is still here
            with suppress(OSError):
                packet, descriptors, _, _ = socket.recv_fds(self._connection, MAX_PACKET_BYTES, 1)
                return packet, descriptors
        return b"", []

    def _understood(self, message: Message, descriptors: list[int]) -> _Found | None:
        self._received_messages += 1
        if self._received_messages % _LOOK_EVERY == 0 and os.fstat(self._stderr).st_size > _MAX_STDERR:
            os.ftruncate(self._stderr, 0)
        if isinstance(message, Picture):
            return self._picture(message)
        if isinstance(message, Buffers):
            self._take_memory(message, descriptors)
            return None
        if isinstance(message, Ready):
            return message
        text = self._clean(message.text)[:_MAX_TEXT]
        if isinstance(message, Ended):
            return Ended(message.why, text, self._clean(message.do)[:_MAX_TEXT])
        return BadPicture(message.index, text)

    def _take_memory(self, message: Buffers, descriptors: list[int]) -> None:
        if len(descriptors) != 1:
            raise ValueError("memory without a descriptor")
        if self._memory is not None:
            self._memory.close()
            self._memory = None
        self._memory = SharedPictures.attach(descriptors.pop(), (message.width, message.height), message.count)
        self._shape = (message.height, message.width, 3)
        self._generation = (self._generation + 1) % 16

    def _picture(self, message: Picture) -> tuple[Picture, Image] | None:
        """A copy; None where it has waited for too long: a newer one follows once its place is free."""
        if self._memory is None:
            raise ValueError("a picture without memory")
        is_stale = time.monotonic_ns() - message.decoded_ns > STALE_NS and self._left_out < PLACES
        self._left_out = self._left_out + 1 if is_stale else 0
        with self._memory.place(message.place) as shared:
            image: Image | None = None if is_stale else np.frombuffer(shared, np.uint8).reshape(self._shape).copy()
        with suppress(OSError):
            self._connection.send(bytes([self._generation * 16 + message.place]))
        return None if image is None else (message, image)

    def _last_words(self) -> str:
        """What the process printed last, or how it ended."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)
        size = os.fstat(self._stderr).st_size
        said = os.pread(self._stderr, _KEPT_STDERR, max(size - _KEPT_STDERR, 0)).decode(errors="replace").split("\n")
        lines = [line.strip() for line in said if line.strip()]
        code = self._process.returncode
        return f"its decoder ended with code {code}" + (f", {self._clean(lines[-1])[:300]}" if lines else "")
