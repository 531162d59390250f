"""A decoder that does what its request says, and never what it should."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable

import msgspec

from vidseg.runtime.sources.streams.messages import Buffers, Ended, Message, Picture, Ready, Request
from vidseg.runtime.sources.streams.shared_pictures import SharedPictures


def _small() -> int:
    descriptor = os.memfd_create("unsealed", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, 1 << 20)
    return descriptor


def main() -> None:
    connection = socket.socket(fileno=int(sys.argv[1]))
    request = msgspec.json.decode(connection.recv(1 << 15), type=Request)
    memory = SharedPictures.create((4, 2), 3)

    def say(*messages: Message, descriptor: int | None = None) -> None:
        for message in messages:
            descriptors = [descriptor] if descriptor is not None and isinstance(message, Buffers) else []
            socket.send_fds(connection, [msgspec.json.encode(message)], descriptors)

    def fail() -> None:
        raise RuntimeError(f"cannot open {request.uri}")

    deeds: dict[str, Callable[[], object]] = {
        "hang": lambda: None,
        "hang at once": lambda: None,
        "ready again": lambda: say(Ready()),
        "crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
        "raise": fail,
        "nonsense": lambda: connection.send(b"{]"),
        "picture first": lambda: say(Picture(0, 0, 1, None)),
        "no memory": lambda: say(Buffers(4, 2, 3)),
        "too little memory": lambda: say(Buffers(16384, 16384, 8), descriptor=memory.descriptor),
        "memory that may shrink": lambda: say(Buffers(4, 2, 3), descriptor=_small()),
        "no such place": lambda: say(Buffers(4, 2, 3), Picture(7, 0, 1, None), descriptor=memory.descriptor),
        "tells": lambda: say(Ended("lost", f"no route to {request.uri}")),
    }
    if request.options["do"] != "hang at once":
        say(Ready())
    deeds[request.options["do"]]()
    connection.recv(1)


if __name__ == "__main__":
    main()
