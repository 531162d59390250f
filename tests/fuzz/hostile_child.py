"""A decoder that sends a good picture, then as many packets as it is asked for, each of them wrong in another way."""

from __future__ import annotations

import os
import random
import socket
import sys
import time

import msgspec

from tests.fuzz.documents import hostile_json
from tests.fuzz.mutation import ODD_TEXTS
from vidseg.runtime.sources.streams.messages import (
    MAX_PACKET_BYTES,
    BadPicture,
    Buffers,
    Ended,
    Message,
    Picture,
    Ready,
    Request,
)
from vidseg.runtime.sources.streams.shared_pictures import SharedPictures

WIDTH, HEIGHT, PLACES = 8, 4, 3
MARK = "(address)"
"""Stands for the address while a message is damaged: it is whole, or not there."""


def _message(rng: random.Random, uri: str) -> Message:
    text = rng.choice((f"cannot open {uri}", uri, rng.choice(ODD_TEXTS)[:1000], f"{uri}\n" * 30))
    stamp_ns = rng.choice((0, None, -5, 10**18))
    return rng.choice((
        Picture(rng.randrange(PLACES), rng.randrange(100), time.monotonic_ns(), stamp_ns),
        Picture(7, 2**62, 0, -(2**62)),
        Buffers(WIDTH, HEIGHT, PLACES),
        Buffers(rng.choice((1, 8, 9, 16384)), rng.choice((1, 4, 5, 16384)), rng.choice((1, 8))),
        BadPicture(rng.randrange(100), text),
        Ended(rng.choice(("lost", "refused")), text),
        Ready(),
    ))  # fmt: skip


def _descriptors(rng: random.Random, memory: SharedPictures) -> list[int]:
    if rng.random() < 0.6:
        return [memory.descriptor]
    return rng.choice(([], [0], [sys.stderr.fileno()], [memory.descriptor, 0], [memory.descriptor] * 3))


def _packet(rng: random.Random, uri: str) -> bytes:
    if rng.random() < 0.1:
        return rng.choice((b"x" * MAX_PACKET_BYTES, b"{" * 9000, b"[" * 9000, rng.randbytes(40), b"\x00", uri.encode()))
    content = msgspec.json.encode(_message(rng, MARK))
    if rng.random() < 0.5:
        content = hostile_json(rng, msgspec.json.decode(content), (MARK,))
    return content.replace(MARK.encode(), uri.encode())[: MAX_PACKET_BYTES - 1] or b" "


def main() -> None:
    connection = socket.socket(fileno=int(sys.argv[1]))
    request = msgspec.json.decode(connection.recv(1 << 15), type=Request)
    rng = random.Random(request.options["seed"])
    memory = SharedPictures.create((WIDTH, HEIGHT), PLACES)
    buffers = msgspec.json.encode(Buffers(WIDTH, HEIGHT, PLACES))
    connection.send(msgspec.json.encode(Ready()))
    socket.send_fds(connection, [buffers], [memory.descriptor])
    connection.send(msgspec.json.encode(Picture(0, 0, time.monotonic_ns(), 0)))
    for _ in range(int(request.options["count"])):
        socket.send_fds(connection, [_packet(rng, request.uri)], _descriptors(rng, memory))
    if rng.random() < 0.5:
        os.write(2, f"cannot go on with {request.uri}\n".encode())
        sys.exit(3)
    connection.send(msgspec.json.encode(Ended("lost", "done")))
    connection.recv(1)


if __name__ == "__main__":
    main()
