"""A run whose parts fail on demand, in a process of its own: `python -m tests.faults.subject FOLDER URI…`

It reads the URIs, a camera that never fails (`steady`) and one that can be unplugged (`usb`); records to
FOLDER/disk/rec, writes FOLDER/results.jsonl, serves a page, and feeds a sink that can fail. Lines on the standard input
are what goes wrong, lines on the standard output how it goes; the last one says what was left over at the end. See
`Run` in `running.py`, which talks to it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic, monotonic_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.fakes import FakeCapture, picture_of
from tests.processes import children_running
from tests.waiting import until
from vidseg.runtime.clock import Clock, SystemClock
from vidseg.runtime.engines import Ticket
from vidseg.runtime.engines.fake import FakeEngine
from vidseg.runtime.errors import DeviceError, EngineError, SinkError, StopTimeoutError, VidsegError
from vidseg.runtime.frame import Frame, Segmentation
from vidseg.runtime.manifest import ClassSpec
from vidseg.runtime.overlay import OverlayStyle
from vidseg.runtime.pipeline import Pipeline, signals_end
from vidseg.runtime.pipeline.controls import PictureDrawer, PipelineControls
from vidseg.runtime.pipeline.options import PipelineOptions
from vidseg.runtime.pipeline.statistics import Statistics
from vidseg.runtime.sinks.callback import CallbackSink
from vidseg.runtime.sinks.opening import sink_from_uri
from vidseg.runtime.sinks.web import WebSink
from vidseg.runtime.sources import Source
from vidseg.runtime.sources.camera import CameraSource
from vidseg.runtime.sources.opening import source_from_uri
from vidseg.runtime.sources.street.code import StreetCode, write_code

SIZE_WH = (192, 144)
RATE = 20
CLASSES = tuple(ClassSpec(name=f"class {number}", color_rgb=(number * 30, 90, 90)) for number in range(8))
REPORT_S = 0.05


class JumpingClock(SystemClock):
    """The system's, with a time of day that somebody sets."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def wall_ns(self) -> int:
        return super().wall_ns() + round(self.ahead_s * 1e9)


class SteadyCamera:
    """Gives numbered pictures, 20 a second, whatever happens elsewhere."""

    name = "steady"
    live = True

    def open(self, clock: Clock, stop: threading.Event) -> None:
        self._clock, self._stop = clock, stop
        self._start_ns = clock.now_ns()
        self._index = 0

    def read(self) -> Frame | None:
        due_ns = self._start_ns + self._index * 1_000_000_000 // RATE
        if not self._clock.sleep_until(due_ns, self._stop):
            return None
        image = np.full((SIZE_WH[1], SIZE_WH[0], 3), 96, np.uint8)
        write_code(image, StreetCode(self._index, self._index))
        self._index += 1
        return Frame(self.name, 0, self._index - 1, self._clock.now_ns(), due_ns, "driver", image)

    def close(self) -> None:
        """Nothing is held."""


class Plug:
    """Of a USB camera: a link to the device, which a test takes away."""

    def __init__(self, link: Path) -> None:
        self.link = link
        self._pulled = threading.Event()
        self.put_in()

    def pull(self) -> None:
        self.link.unlink(missing_ok=True)
        self._pulled.set()

    def put_in(self) -> None:
        self._pulled.clear()
        self.link.touch()

    def open_capture(self, _path: Path) -> FakeCapture:
        return FakeCapture(_EndlessShots(self._pulled))  # type: ignore[arg-type]


class _EndlessShots:
    """Pictures at 20 a second while the camera is plugged in, then nothing."""

    def __init__(self, pulled: threading.Event) -> None:
        self._pulled = pulled

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], None] | None:
        return None if self._pulled.wait(1 / RATE) else (picture_of(index, (64, 48)), None)


class Faults:
    """What is to go wrong next."""

    def __init__(self) -> None:
        self.failures = 0
        self.stall_s = 0.0
        self.device_is_lost = False
        self.sink_fails = False

    def before_inference(self) -> None:
        if self.device_is_lost:
            raise DeviceError("the device is lost")
        stall_s, self.stall_s = self.stall_s, 0.0
        threading.Event().wait(stall_s)
        if self.failures:
            self.failures -= 1
            raise EngineError("inference failed")


class FaultyEngine(FakeEngine):
    """A fake engine with those faults."""

    def __init__(self, faults: Faults) -> None:
        super().__init__((64, 48))
        self._injected = faults

    def enqueue(self, batch: NDArray[np.uint8]) -> Ticket:  # type: ignore[override]
        self._injected.before_inference()
        return super().enqueue(batch)


class Tally:
    """What came of each source, and whether in order."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.last: dict[str, tuple[int, int]] = {}
        self.sizes: dict[str, tuple[int, ...]] = {}
        self.disorder: list[str] = []

    def __call__(self, result: Segmentation) -> None:
        frame = result.frame
        key = (frame.epoch, frame.index)
        if key <= self.last.get(frame.source, (-1, -1)):
            self.disorder.append(f"{frame.source}: {key} behind {self.last[frame.source]}")
        self.last[frame.source] = key
        self.sizes[frame.source] = frame.image.shape[:2]
        self.counts[frame.source] = self.counts.get(frame.source, 0) + 1


class Subject:
    """The run."""

    def __init__(self, folder: Path, uris: list[str]) -> None:
        self.clock = JumpingClock()
        self.faults = Faults()
        self.plug = Plug(folder / "usb")
        self.tally = Tally()
        usb = CameraSource(self.plug.link, open_capture=self.plug.open_capture, list_cameras=list)
        sources: list[Source] = [SteadyCamera(), usb, *map(source_from_uri, uris)]
        self.web = WebSink("web://127.0.0.1:0", CLASSES, clock=self.clock)
        sinks = [
            CallbackSink(self.tally, name="tally"),
            CallbackSink(self._fragile, name="fragile"),
            sink_from_uri(str(folder / "results.jsonl"), CLASSES),
            sink_from_uri(f"record://{folder}/disk/rec#segment_s=2&min_free_mib=0&picture=frame", CLASSES),
            self.web,
        ]
        drawer = PictureDrawer(CLASSES, OverlayStyle(), hud=True)
        options = PipelineOptions(retry="always", heartbeat_ms=200)
        self.pipeline = Pipeline(
            sources, lambda: FaultyEngine(self.faults), sinks, options=options, draw=drawer.draw, clock=self.clock
        )
        self.web.attach(PipelineControls(self.pipeline, drawer, sinks))
        self.unbalanced = 0

    def _fragile(self, _result: Segmentation) -> None:
        if self.faults.sink_fails:
            raise SinkError("the sink fails")

    def report(self, statistics: Statistics) -> None:
        self.unbalanced += not statistics.ledger.balanced
        say(at=monotonic(), counts=self.tally.counts, last=self.tally.last, sizes=self.tally.sizes)

    def _add(self, uri: str) -> None:
        source = source_from_uri(uri)
        until(lambda: source.name not in self.pipeline.sources.names)  # one of that name has let go
        self.pipeline.sources.add(source)

    def obey(self, order: dict[str, Any]) -> None:
        """Let something go wrong, or do what a person may do while it runs."""
        sources = self.pipeline.sources
        orders: dict[str, Callable[..., object]] = {
            "fail": lambda count: setattr(self.faults, "failures", count),
            "stall": lambda seconds: setattr(self.faults, "stall_s", seconds),
            "lose_device": lambda _: setattr(self.faults, "device_is_lost", True),
            "fail_sink": lambda _: setattr(self.faults, "sink_fails", True),
            "jump": lambda seconds: setattr(self.clock, "ahead_s", self.clock.ahead_s + seconds),
            "pull": lambda _: self.plug.pull(),
            "put_in": lambda _: self.plug.put_in(),
            "pause": sources.pause,
            "resume": sources.resume,
            "remove": sources.remove,
            "add": self._add,
        }
        for name, value in order.items():
            orders[name](value)


def say(**document: Any) -> None:
    """One line."""
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def open_files() -> dict[str, str]:
    """What this process's descriptors are."""
    found = {}
    for entry in list(Path("/proc/self/fd").iterdir()):
        with suppress(FileNotFoundError):  # it was the one of the listing
            found[entry.name] = str(entry.readlink())
    return found


def main() -> None:
    """Run until a signal, a fault, or the end of the standard input's other side."""
    folder, *uris = sys.argv[1:]
    (Path(folder) / "disk").mkdir(exist_ok=True)
    files_before, threads_before = open_files(), set(threading.enumerate())
    subject = Subject(Path(folder), uris)

    def obey_all() -> None:
        for line in sys.stdin:
            subject.obey(json.loads(line))

    listener = threading.Thread(target=obey_all, daemon=True)
    listener.start()
    error = ""
    say(port=subject.web.port)
    with signals_end(subject.pipeline) as received:
        try:
            subject.pipeline.run(subject.report, REPORT_S)
        except VidsegError as caught:
            error = type(caught).__name__
            if isinstance(caught, StopTimeoutError):
                error = str(caught)
    ledger = subject.pipeline.statistics().ledger
    left = {number: target for number, target in open_files().items() if number not in files_before}
    say(
        at=monotonic_ns() / 1e9, counts=subject.tally.counts, last=subject.tally.last, sizes=subject.tally.sizes,
        end={
            "signal": received.number, "error": error, "disorder": subject.tally.disorder,
            "unbalanced": subject.unbalanced + (not ledger.balanced), "in_flight": ledger.in_flight,
            "captured": ledger.captured, "resolved": ledger.resolved, "dropped": ledger.dropped,
            "queued": {name: account.queued for name, account in ledger.sinks.items() if account.queued},
            "threads": [thread.name for thread in set(threading.enumerate()) - threads_before - {listener}],
            "files": left, "children": children_running("child"),
        },
    )  # fmt: skip
    os._exit(0)  # the listener waits for a line that never comes


if __name__ == "__main__":
    main()
