"""Two ways to infer on many cameras: vidseg's pipeline, and the loop that people write, a `cv2.VideoCapture` thread a
camera. Each runs in a process of its own: `python -m benchmarks.camera_readers KIND PORT CAMERAS WINDOW_S`.

Both use an engine that takes 4 ms for up to eight pictures; the loop gives it one at a time. A result keeps the pixels
that hold the frame's number; they are read when everything is over.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeAlias

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.camera_clip import SIZE_WH
from vidseg.runtime.engines.fake import FakeEngine, FakeService
from vidseg.runtime.frame import Image, Segmentation, SourceStatus
from vidseg.runtime.pipeline import Pipeline, PipelineOptions
from vidseg.runtime.sinks import Sink
from vidseg.runtime.sources.streams.source import StreamSource
from vidseg.runtime.sources.street.code import COLUMNS, ROW_SHARE, ROWS, read_code

Kind: TypeAlias = Literal["vidseg", "plain loop"]

ENGINE_WH = (160, 120)
SERVICE = FakeService(4.0, max_batch=8)
OPENING_S = 40.0
"""How long is waited for the last camera: 64 processes start on two cores."""

SETTLE_S = 3.0

_ROWS = np.array([round((1 - (ROWS - row - 0.5) * ROW_SHARE) * SIZE_WH[1]) for row in range(ROWS)])
_COLUMNS = ((np.arange(COLUMNS) + 0.5) * SIZE_WH[0] / COLUMNS).astype(int)
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Result(msgspec.Struct, frozen=True, array_like=True):
    """A result: the camera's number of the frame, the reader's (the loop has none), and when it was there."""

    number: int
    index: int
    at_ns: int


class Run(msgspec.Struct, frozen=True):
    """What a reader did in its window.

    Attributes:
        begin_ns, end_ns: of the window, on the monotonic clock.
        core_s: seconds of processor, its children's too.
        pss_mib: memory of it and its children at the end, shared pages split among those that share them.
        results: by camera, before and behind the window too.
        damaged: results whose number could not be read.
        silent: cameras that it was told of as silent or lost.
        balanced: its books, where it has any, are balanced at the end, and nothing is in flight.
    """

    begin_ns: int
    end_ns: int
    core_s: float
    pss_mib: float
    results: list[list[Result]]
    damaged: int
    silent: list[int]
    balanced: bool


class Results:
    """Collects results with as little work as can be."""

    def __init__(self, cameras: int) -> None:
        self._shown: list[list[tuple[int, int, NDArray[np.uint8]]]] = [[] for _ in range(cameras)]
        self.silent: set[int] = set()

    def add(self, camera: int, index: int, image: Image) -> None:
        """A result for a picture is there now."""
        self._shown[camera].append((time.monotonic_ns(), index, image[_ROWS[:, None], _COLUMNS, 1]))

    @property
    def complete(self) -> bool:
        """Every camera has given something."""
        return all(self._shown)

    def read(self) -> tuple[list[list[Result]], int]:
        """All of them, and how many are of no known frame."""
        results: list[list[Result]] = [[] for _ in self._shown]
        damaged = 0
        for found, shown in zip(results, self._shown, strict=True):
            for at_ns, index, blocks in shown:
                picture = np.zeros((round(1 / ROW_SHARE), COLUMNS, 3), np.uint8)  # a pixel a block
                picture[-ROWS:] = blocks[..., None]
                code = read_code(picture)
                if code is None:
                    damaged += 1
                else:
                    found.append(Result(code.index, index, at_ns))
        return results, damaged


class ResultSink(Sink):
    """Takes the pipeline's results."""

    name = "results"
    queue_size = 64

    def __init__(self, results: Results) -> None:
        self._results = results

    def write(self, segmentation: Segmentation, picture: Image | None) -> None:  # noqa: ARG002 - not wanted
        """Keep it."""
        frame = segmentation.frame
        self._results.add(_camera_of(frame.source), frame.index, frame.image)

    def notify(self, status: SourceStatus) -> None:
        """Keep which camera it is that gives nothing."""
        if status.state != "opening":
            self._results.silent.add(_camera_of(status.source))


def _camera_of(name: str) -> int:
    return int(name.rpartition("/")[2])


def read_with_vidseg(port: int, cameras: int, window_s: float) -> Run:
    """The pipeline, as `vidseg run` has it."""
    uris = [f"rtsp://127.0.0.1:{port}/{camera}#open_s={OPENING_S:g}" for camera in range(cameras)]
    results = Results(cameras)
    options = PipelineOptions(retry="always")
    sources = [StreamSource.from_uri(uri) for uri in uris]
    pipeline = Pipeline(sources, lambda: FakeEngine(ENGINE_WH, SERVICE), [ResultSink(results)], options=options)
    pipeline.start()
    window = _measured(results, window_s)
    pipeline.stop()
    ledger = pipeline.statistics().ledger
    return _run(window, results, balanced=ledger.balanced and not ledger.in_flight)


def resized(image: Image) -> Image:
    """As the pipeline lays it on the engine's input."""
    return cv2.resize(image, ENGINE_WH).astype(np.uint8, copy=False)


class CaptureThread(threading.Thread):
    """Reads a camera and keeps its newest picture."""

    def __init__(self, uri: str, arrived: threading.Event) -> None:
        super().__init__(daemon=True)
        self._uri = uri
        self._arrived = arrived
        self._lock = threading.Lock()
        self._newest: Image | None = None

    def run(self) -> None:
        """To the stream's end."""
        capture = cv2.VideoCapture(self._uri, cv2.CAP_FFMPEG)
        while True:
            is_there, image = capture.read()
            if not is_there:
                return
            with self._lock:
                self._newest = image.astype(np.uint8, copy=False)
            self._arrived.set()

    def take(self) -> Image | None:
        """The newest, if there is one that was not taken."""
        with self._lock:
            newest, self._newest = self._newest, None
        return newest


def read_with_plain_loop(port: int, cameras: int, window_s: float) -> Run:
    """A thread a camera, and a loop that infers on what each has, in turn."""
    arrived = threading.Event()
    threads = [CaptureThread(f"rtsp://127.0.0.1:{port}/{camera}", arrived) for camera in range(cameras)]
    results = Results(cameras)
    for thread in threads:
        thread.start()
    ended = threading.Event()

    def infer() -> None:
        with FakeEngine(ENGINE_WH, SERVICE) as engine:
            while not ended.is_set():
                arrived.wait(1)
                arrived.clear()
                for camera, thread in enumerate(threads):
                    image = thread.take()
                    if image is not None:
                        engine.enqueue(resized(image)[None]).result()
                        results.add(camera, 0, image)

    loop = threading.Thread(target=infer)
    loop.start()
    window = _measured(results, window_s)
    ended.set()
    loop.join()
    return _run(window, results, balanced=True)


READERS: dict[Kind, Callable[[int, int, float], Run]] = {
    "vidseg": read_with_vidseg,
    "plain loop": read_with_plain_loop,
}


OPENCV = {
    "OPENCV_FFMPEG_CAPTURE_OPTIONS": "rtsp_transport;tcp|analyzeduration;100000|fpsprobesize;0",
    "OPENCV_LOG_LEVEL": "SILENT",
    "OPENCV_FFMPEG_LOGLEVEL": "-8",
}
"""For the plain loop: cameras are opened as vidseg opens them. OpenCV else looks at each for seconds, one by one."""


def read_cameras(kind: Kind, port: int, cameras: int, window_s: float) -> Run:
    """Run one of them in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.camera_readers", kind, str(port), str(cameras), str(window_s)],
        stdout=subprocess.PIPE, check=True, env=os.environ | OPENCV,
    )  # fmt: skip
    return msgspec.json.decode(done.stdout, type=Run)


class _Window(msgspec.Struct, frozen=True):
    begin_ns: int
    end_ns: int
    core_s: float
    pss_mib: float


def _measured(results: Results, window_s: float) -> _Window:
    deadline = time.monotonic() + OPENING_S
    while not results.complete and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(SETTLE_S)
    begin_ns, before_s = time.monotonic_ns(), _core_s()
    time.sleep(window_s)
    return _Window(begin_ns, time.monotonic_ns(), _core_s() - before_s, _pss_mib())


def _run(window: _Window, results: Results, *, balanced: bool) -> Run:
    found, damaged = results.read()
    return Run(
        window.begin_ns, window.end_ns, window.core_s, window.pss_mib, found, damaged, sorted(results.silent),
        balanced,
    )  # fmt: skip


def _processes() -> list[Path]:
    """This one and its children."""
    children: list[str] = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            children += (task / "children").read_text(encoding="ascii").split()
    return [Path("/proc/self"), *(Path("/proc") / child for child in children)]


def _core_s() -> float:
    """User and system time, with what children had that have ended; proc(5) numbers the fields."""
    ticks = 0
    for process in _processes():
        with suppress(OSError):
            ticks += sum(int(value) for value in (process / "stat").read_text().rpartition(")")[2].split()[11:15])
    return ticks * _TICK_S


def _pss_mib() -> float:
    kib = 0
    for process in _processes():
        with suppress(OSError):
            lines = (process / "smaps_rollup").read_text(encoding="ascii").splitlines()
            kib += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kib / 1024


def main() -> None:
    """Read, and print what was seen."""
    kind, port, cameras, window_s = sys.argv[1:]
    os.nice(5)  # the cameras come first: they wait for nobody
    cv2.setNumThreads(1)
    logging.disable(logging.WARNING)
    run = READERS["vidseg" if kind == "vidseg" else "plain loop"](int(port), int(cameras), float(window_s))
    sys.stdout.buffer.write(msgspec.json.encode(run))
    sys.stdout.flush()
    os._exit(0)  # threads in `cv2.VideoCapture.read` cannot be ended


if __name__ == "__main__":
    main()
