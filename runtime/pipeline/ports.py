"""Where results leave the pipeline: a queue before each sink, emptied by one thread."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeAlias

from vidseg.runtime.errors import VidsegError
from vidseg.runtime.frame import Image, Segmentation
from vidseg.runtime.pipeline.channel import Channel
from vidseg.runtime.pipeline.ledger import Ledger
from vidseg.runtime.pipeline.statistics import Meters
from vidseg.runtime.sinks import MainThreadSink, Sink, StopRequested

log = logging.getLogger(__name__)

Item: TypeAlias = tuple[Segmentation, Image | None]


class Port:
    """A sink's queue and its account. A sink that fails is detached: its queue is emptied, the others go on."""

    def __init__(self, name: str, queue_size: int, ledger: Ledger) -> None:
        self.name = name
        self.wants_picture = False
        self._ledger = ledger
        self._channel: Channel[Item] = Channel(queue_size)
        ledger.open_sink(name)

    def offer(self, segmentation: Segmentation, picture: Image | None, *, wait: bool) -> None:
        """Queue a result: wait for room, or push the oldest one out. A closed port drops it."""
        self._ledger.offer(self.name)
        if wait:
            if not self._channel.put((segmentation, picture)):
                self._ledger.settle(self.name, "dropped")
        else:
            for _ in self._channel.put_latest((segmentation, picture)):
                self._ledger.settle(self.name, "dropped")

    def take(self, timeout_s: float | None = None) -> Segmentation | None:
        """The oldest result, booked as written; None at the end or when the time is over."""
        item = self._channel.get(timeout_s)
        if item is None:
            return None
        self._ledger.settle(self.name, "written")
        return item[0]

    @property
    def finished(self) -> bool:
        """True when nothing is left and nothing more can come."""
        return self._channel.finished

    def finish(self) -> None:
        """Nothing more will be offered; what waits is still delivered."""
        self._channel.close()

    def abort(self) -> None:
        """Close, and give up what waits."""
        for _ in self._channel.abort():
            self._ledger.settle(self.name, "dropped")


class SinkPort(Port):
    """A port that writes to a sink.

    Args:
        sink: written to and closed by whoever calls this object, or `step`, and by nobody else.
        ledger, meters: where deliveries and their times are booked.
        on_failure: called once with the error when the sink is detached.
        on_stop_request: called when the sink raised `StopRequested`.
    """

    def __init__(
        self,
        sink: Sink,
        ledger: Ledger,
        meters: Meters,
        on_failure: Callable[[SinkPort, BaseException], None],
        on_stop_request: Callable[[], None],
    ) -> None:
        super().__init__(sink.name, sink.queue_size, ledger)
        self.sink = sink
        self.attached = True
        self._meters = meters
        self._on_failure = on_failure
        self._on_stop_request = on_stop_request
        self.wants_picture = sink.wants_picture

    def __call__(self) -> None:
        """Deliver until the port is closed and empty, then close the sink."""
        try:
            while not self.finished:
                self.step(None)
        finally:
            self.close_sink()

    def step(self, timeout_s: float | None) -> bool:
        """Deliver one result, waiting at most `timeout_s` for it; False when there was none."""
        item = self._channel.get(timeout_s)
        if item is None:
            return False
        try:
            with self._meters.timed(f"sink {self.name}"):
                self.sink.write(*item)
        except StopRequested:
            self._on_stop_request()
        except Exception as error:  # noqa: BLE001 - any error of a sink detaches it and is reported
            self._ledger.settle(self.name, "failed")
            self._detach(error)
            return True
        self._ledger.settle(self.name, "written")
        return True

    def pump(self) -> None:
        """Let a window handle its events."""
        if isinstance(self.sink, MainThreadSink) and self.attached:
            try:
                self.sink.pump()
            except StopRequested:
                self._on_stop_request()
            except Exception as error:  # noqa: BLE001 - see above
                self._detach(error)

    def close_sink(self) -> None:
        """Give up what waits and finish the sink's file."""
        self.abort()
        try:
            self.sink.close()
        except Exception as error:  # noqa: BLE001 - see above
            self._detach(error)

    def _detach(self, error: BaseException) -> None:
        self.abort()
        if self.attached:
            self.attached = False
            self.wants_picture = False
            self._on_failure(self, error)
        elif not isinstance(error, VidsegError):
            log.error("%s failed again while it was closed: %s", self.name, error)
