"""A page that is served in earnest, with a pipeline behind it that a test holds in its hand."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from vidseg.runtime.errors import UsageError
from vidseg.runtime.frame import Frame, Segmentation, SourceStatus
from vidseg.runtime.manifest import ClassSpec
from vidseg.runtime.overlay import OverlayStyle
from vidseg.runtime.pipeline.ledger import LedgerSnapshot, SinkAccount
from vidseg.runtime.pipeline.statistics import Statistics
from vidseg.runtime.sinks import Sink
from vidseg.runtime.sinks.web import WebSink
from vidseg.runtime.web.connections import Connections

TOKEN = "a-token-of-some-length"
CLASSES = tuple(
    ClassSpec(name=name, color_rgb=color)
    for name, color in (("road", (128, 64, 128)), ("car", (0, 90, 220)), ("sky", (90, 180, 240)))
)
Answer = tuple[int, dict[str, str], bytes]


class PretendPipeline:
    """Has two sources, and does what it is told."""

    def __init__(self, names: tuple[str, ...] = ("front", "rtsp://10.0.0.7/yard")) -> None:
        self.names = names
        self.style = OverlayStyle()
        self.waiting: set[str] = set()
        self.resolved = 0
        self.outputs: list[Sink] = []
        self.age_ms = 21.5
        self.hanging: tuple[str, ...] = ()
        self.detached: tuple[str, ...] = ()

    def statistics(self) -> Statistics:
        self.resolved += 10
        return Statistics(
            3.5, 10.0, 9.5, 2, self.age_ms, self.age_ms + 58.75, {"infer": 12.5, "render": 1.5},
            LedgerSnapshot(
                self.resolved + 5, self.resolved, 1, {"replaced": 3, "missed": 1},
                {"web://127.0.0.1:0": SinkAccount(self.resolved, self.resolved - 1, 1)},
            ),
            self.hanging, self.detached,
        )  # fmt: skip

    def source_names(self) -> tuple[str, ...]:
        return self.names

    def pause(self, name: str) -> None:
        if name == "stubborn":
            raise UsageError("stubborn cannot be paused")
        self.waiting.add(name)

    def resume(self, name: str) -> None:
        self.waiting.discard(name)

    def paused(self) -> frozenset[str]:
        return frozenset(self.waiting)

    def overlay(self) -> OverlayStyle:
        return self.style

    def set_overlay(self, style: OverlayStyle) -> None:
        self.style = style

    def sinks(self) -> list[Sink]:
        return self.outputs


def result_of(index: int, source: str = "front", size_wh: tuple[int, int] = (64, 48)) -> Segmentation:
    """Upper half sky, lower half road, and a car that moves."""
    width, height = size_wh
    image = np.full((height, width, 3), (index * 37) % 200, np.uint8)
    left = (index * 7) % (width - 8)
    image[height // 2 : height // 2 + 8, left : left + 8] = (0, 0, 255)
    class_map = np.zeros((24, 32), np.uint8)
    class_map[:12] = 2
    class_map[16:20, 4:12] = 1
    class_map[20:, :4] = 255
    frame = Frame(source, 0, index, time.monotonic_ns(), index, "wall", image)
    return Segmentation(frame, class_map, np.array([[32 / width, 0, 0], [0, 24 / height, 0]]), 20.0)


class Cameras:
    """Write results to a site at 20 Hz until they are lost."""

    def __init__(self, served: Site, *names: str, size_wh: tuple[int, int] = (640, 360)) -> None:
        self._served = served
        self._names = names or ("front",)
        self._size_wh = size_wh
        self._done = threading.Event()
        self.is_lost = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        index, lost_ns = 0, 0
        while not self._done.wait(0.05):
            index += 1
            if self.is_lost.is_set():
                lost_ns = lost_ns or time.monotonic_ns()
                self._served.sink.notify(SourceStatus("front", "lost", lost_ns))
                continue
            for name in self._names:
                if name not in self._served.pipeline.waiting:
                    self._served.write(index, name, size_wh=self._size_wh)

    def __enter__(self) -> Cameras:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


class Site:
    """A page at a free port.

    Args:
        token: makes it one that is served to other machines too, as far as it knows.
        attached: its pipeline is there.
        names: by which it is known besides.
        connections: the server's limits.
    """

    def __init__(
        self, token: str = "", *, attached: bool = True, names: str = "", connections: Connections | None = None
    ) -> None:
        uri = f"web://0.0.0.0:0#token={token}" if token else "web://127.0.0.1:0"
        uri += f"&names={names}" if names else ""
        self.sink = WebSink(uri, CLASSES, connections=connections)
        self.port = self.sink.port
        self.host = f"127.0.0.1:{self.port}"
        self.pipeline = PretendPipeline()
        if attached:
            self.sink.attach(self.pipeline)

    def write(self, index: int, source: str = "front", size_wh: tuple[int, int] = (64, 48)) -> None:
        result = result_of(index, source, size_wh)
        self.sink.write(result, result.frame.image)

    def request(
        self, path: str, method: str = "GET", headers: dict[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=8)
        try:
            connection.request(method, path, body or None, headers or {})
            answer = connection.getresponse()
            found = {name.lower(): text for name, text in answer.getheaders()}
            return answer.status, found, answer.read()
        finally:
            connection.close()

    def post(self, path: str, document: object = None) -> Answer:
        body = b"" if document is None else json.dumps(document).encode()
        return self.request(path, "POST", {"Origin": f"http://{self.host}"}, body)

    def json(self, path: str) -> Any:
        return json.loads(self.request(path)[2])

    def metric(self, name: str) -> float:
        lines = self.request("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})[2].decode().splitlines()
        return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    def connect(self, path: str, extra: str = "") -> socket.socket:
        """A connection that has asked, and has not read."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=8)
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {self.host}\r\n{extra}\r\n".encode())
        return connection


@contextmanager
def site(
    token: str = "", *, attached: bool = True, names: str = "", connections: Connections | None = None
) -> Iterator[Site]:
    """A site that is closed again."""
    served = Site(token, attached=attached, names=names, connections=connections)
    try:
        yield served
    finally:
        served.sink.close()


def pictures(connection: socket.socket, count: int) -> list[bytes]:
    """The next pictures of a stream, as JPEG; not a byte more is read."""
    found: list[bytes] = []
    with connection.makefile("rb", buffering=0) as stream:
        while len(found) < count:
            line = stream.readline()
            assert line, "the stream has ended"
            if line.lower().startswith(b"content-length:"):
                stream.readline()
                jpeg = bytearray()
                while len(jpeg) < int(line.split(b":")[1]):
                    jpeg += stream.read(int(line.split(b":")[1]) - len(jpeg)) or b""
                found.append(bytes(jpeg))
    return found
