"""Where results leave the pipeline: a queue before each sink, emptied by one thread."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeAlias

from vidseg.runtime.errors import VidsegError
from vidseg.runtime.frame import Image, Segmentation, SourceStatus
from vidseg.runtime.pipeline.books import Books
from vidseg.runtime.pipeline.channel import Channel
from vidseg.runtime.sinks import MainThreadSink, Sink, StopRequested

log = logging.getLogger(__name__)

Item: TypeAlias = tuple[Segmentation, Image | None, bool] | SourceStatus
"""A result, its picture, and whether it has to stay because its source was recorded; or word of a silent source."""


class Port:
    """A sink's queue and its account. A sink that fails is detached: its queue is emptied, the others go on."""

    def __init__(self, name: str, queue_size: int, books: Books) -> None:
        self.name = name
        self.on_room: Callable[[], None] = lambda: None
        self._books = books
        self._ledger = ledger = books.ledger
        self._channel: Channel[Item] = Channel(queue_size)
        ledger.open_sink(name)

    def offer(self, segmentation: Segmentation, picture: Image | None, *, wait: bool) -> None:
        """Queue a result: wait for room, or push one of a live source out, see `Channel`. A closed port drops it."""
        self._ledger.offer(self.name)
        put = self._channel.put_kept if wait else self._channel.put_latest
        self._drop(put((segmentation, picture, wait), _group_of))

    @property
    def wants_picture(self) -> bool:
        """True where what is offered next needs its picture."""
        return False

    @property
    def spare(self) -> int:
        """How many results fit before one has to wait or to go."""
        return self._channel.spare

    def take(self, timeout_s: float | None = None) -> Segmentation | None:
        """The oldest result, booked as written; None at the end or when the time is over."""
        item = self._got(timeout_s)
        if item is None:
            return None
        assert not isinstance(item, SourceStatus)  # only sinks are told of sources
        self._ledger.settle(self.name, "written")
        return self._stamped(item[0])

    @property
    def finished(self) -> bool:
        """True when nothing is left and nothing more can come."""
        return self._channel.finished

    def finish(self) -> None:
        """Nothing more will be offered; what waits is still delivered."""
        self._channel.close()

    def abort(self) -> None:
        """Close, and give up what waits."""
        self._drop(self._channel.abort())
        self.on_room()

    def _got(self, timeout_s: float | None) -> Item | None:
        item = self._channel.get(timeout_s)
        if item is not None:
            self.on_room()
        return item

    def _drop(self, items: list[Item]) -> None:
        for item in items:
            if not isinstance(item, SourceStatus):
                self._ledger.settle(self.name, "dropped")

    def _stamped(self, segmentation: Segmentation) -> Segmentation:
        stamped = self._books.stamped(segmentation)
        if stamped.late:
            self._books.meters.record_late()
        return stamped


def _group_of(item: Item) -> str | tuple[str] | None:
    """The source, so that none takes another's place; words about a source are apart. None for what has to stay."""
    if isinstance(item, SourceStatus):
        return None if item.state == "removed" else (item.source,)
    return None if item[2] else item[0].frame.source


class SinkPort(Port):
    """A port that writes to a sink.

    Args:
        sink: written to and closed by whoever calls this object, or `step`, and by nobody else.
        books: where deliveries and their times are booked.
        on_failure: called once with the error when the sink is detached.
        on_stop_request: called when the sink raised `StopRequested`.
    """

    def __init__(
        self,
        sink: Sink,
        books: Books,
        on_failure: Callable[[SinkPort, BaseException], None],
        on_stop_request: Callable[[], None],
    ) -> None:
        super().__init__(sink.name, sink.queue_size, books)
        self.sink = sink
        self.attached = True
        self._on_failure = on_failure
        self._on_stop_request = on_stop_request

    @property
    def wants_picture(self) -> bool:
        """True while the sink wants one; a sink may change its mind."""
        return self.attached and self.sink.wants_picture

    def __call__(self) -> None:
        """Deliver until the port is closed and empty, then close the sink."""
        try:
            while not self.finished:
                self.step(None)
        finally:
            self.close_sink()

    def step(self, timeout_s: float | None) -> bool:
        """Deliver one result, waiting at most `timeout_s` for it; False when there was none."""
        item = self._got(timeout_s)
        if item is None:
            return False
        if isinstance(item, SourceStatus):
            self._call(self.sink.notify, item)
            return True
        with self._books.meters.timed(f"sink {self.name}"):
            segmentation, picture = self._stamped(item[0]), item[1]
            if segmentation.late and picture is not None:
                picture = segmentation.frame.image  # what was drawn shows what is not to be known
            has_worked = self._call(self.sink.write, segmentation, picture)
        self._ledger.settle(self.name, "written" if has_worked else "failed")
        return True

    def notify(self, status: SourceStatus) -> None:
        """Tell the sink of a silent source, where there is room; of a removed one in any case."""
        if status.state == "removed":
            self._drop(self._channel.put_latest(status, _group_of))
        else:
            self._channel.put_if_room(status)

    def pump(self) -> None:
        """Let a window handle its events."""
        if isinstance(self.sink, MainThreadSink) and self.attached:
            self._call(self.sink.pump)

    def close_sink(self) -> None:
        """Give up what waits and finish the sink's file."""
        self.abort()
        self._call(self.sink.close)

    def _call(self, method: Callable[..., None], *arguments: object) -> bool:
        """Call the sink; False where it failed and was detached."""
        try:
            with self._books.watchdog.working(f"sink {self.name}"):
                method(*arguments)
        except StopRequested:
            self._on_stop_request()
        except Exception as error:  # noqa: BLE001 - any error of a sink detaches it and is reported
            self._detach(error)
            return False
        return True

    def _detach(self, error: BaseException) -> None:
        self.abort()
        if self.attached:
            self.attached = False
            self._on_failure(self, error)
        elif not isinstance(error, VidsegError):
            log.error("%s failed again while it was closed: %s", self.name, error)
