"""What the source, infer and render threads do. Each worker is a callable; `Pipeline` owns the threads."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.decoding import Decoder, Outputs
from vidseg.runtime.engines import Engine, Ticket
from vidseg.runtime.errors import DeviceError, EngineError, FrameError, SourceOpenError
from vidseg.runtime.frame import Frame, Image, Segmentation
from vidseg.runtime.geometry import Fit, Placement, placement_of
from vidseg.runtime.pipeline.admission import Admission
from vidseg.runtime.pipeline.books import Books
from vidseg.runtime.pipeline.channel import Channel
from vidseg.runtime.pipeline.heartbeats import Heartbeats
from vidseg.runtime.pipeline.intake import Intake
from vidseg.runtime.pipeline.ports import Port
from vidseg.runtime.segmenter import segmentation_of
from vidseg.runtime.sources import Source

log = logging.getLogger(__name__)

LOSSLESS_DEPTH = 2
"""Tickets in flight for recorded sources: the next upload overlaps with the execution before it."""


@dataclass(frozen=True, slots=True, eq=False)
class Inferred:
    """A frame and what the engine gave for it; `decode` turns that into a prediction."""

    frame: Frame
    placement: Placement
    outputs: Outputs
    decode: Decoder


GOOD_BATCHES = 1000
"""Behind this many, an engine that was opened anew has proven itself and may be opened anew another time."""


class SourceWorker:
    """Reads one source into its slot until it ends or `stop` is set."""

    def __init__(
        self, source: Source, intake: Intake, books: Books, heartbeats: Heartbeats, stop: threading.Event
    ) -> None:
        self._source = source
        self._heartbeats = heartbeats
        self._intake = intake
        self._books = books
        self._stop = stop
        self._good = self._bad = 0
        self._expected = (0, 0)

    def __call__(self) -> None:
        """Run to the end.

        Raises:
            SourceError: as the source does, or because none of its frames could be read.
        """
        try:
            self._source.open(self._books.clock, self._stop)
            while not self._stop.is_set() and self._read_one():
                pass
            if self._bad and not self._good and not self._stop.is_set():
                raise SourceOpenError(f"{self._source.name}: no frame can be read", f"{self._bad} bad ones")
        except BaseException:
            self._heartbeats.lost(self._source.name)
            raise
        finally:
            try:
                self._source.close()
            finally:
                self._heartbeats.ended(self._source.name)
                self._intake.finish(self._source.name)

    def _count_gap(self, frame: Frame) -> None:
        epoch, expected = self._expected
        if frame.epoch == epoch and frame.index > expected:
            self._books.ledger.miss(frame.index - expected)
        self._expected = (frame.epoch, frame.index + 1)

    def _read_one(self) -> bool:
        ledger = self._books.ledger
        try:
            started_ns = self._books.clock.now_ns()
            frame = self._source.read()
            if not self._source.live:  # a live one mostly waits for its camera
                self._books.meters.record_stage("read", self._books.clock.now_ns() - started_ns)
        except FrameError as error:
            self._bad += 1
            self._expected = (self._expected[0], self._expected[1] + 1)
            ledger.capture_bad()
            log.warning("%s", error)
            return True
        if frame is None:
            return False
        self._good += 1
        if self._source.live:
            self._count_gap(frame)
        self._heartbeats.frame(self._source.name)
        ledger.capture(frame)
        for given_up in self._intake.put(frame):
            ledger.drop(given_up, "stopped" if given_up is frame else "replaced")
        return True


class InferWorker:
    """The only user of the device: takes frames from the slots, keeps up to two batches in flight.

    A batch that fails is tried once more, then the engine is opened again and it is tried a last time. If that engine
    fails twice too before it has proven itself, the run ends. A `DeviceError` is never retried: the device's state is
    lost for this process.
    """

    def __init__(
        self,
        open_engine: Callable[[], Engine],
        intake: Intake,
        outbox: Channel[Inferred],
        books: Books,
        *,
        admission: Admission,
        fit: Fit,
        aborted: threading.Event,
    ) -> None:
        self._open_engine = open_engine
        self._intake = intake
        self._outbox = outbox
        self._books = books
        self._admission = admission
        self._fit = fit
        self._aborted = aborted
        self._pending: deque[_Work] = deque()
        self._engine: Engine | None = None
        self._good_batches = GOOD_BATCHES

    def __call__(self) -> None:
        """Run until the slots are closed and empty.

        Raises:
            EngineError: the engine cannot be opened, or failed again after it was rebuilt.
            DeviceError: the device is lost.
        """
        try:
            self._engine = self._open_engine()
            while not self._intake.finished or self._pending:
                self._step(self._engine)
        finally:
            for work in self._pending:
                self._books.ledger.drop(work.frame, "stopped")
            self._outbox.close()
            if self._engine is not None:
                self._engine.close()

    def _step(self, engine: Engine) -> None:
        depth = LOSSLESS_DEPTH if all(not work.live for work in self._pending) else 1
        frame = None
        if len(self._pending) < depth:
            frame = self._intake.take(wait=not self._pending)
            if frame is not None:
                self._admission.taken(frame.source)
        if frame is None:
            if self._pending:
                self._finish(self._pending.popleft())
        elif self._over_age(frame):
            self._books.ledger.drop(frame, "over_age")
        else:
            self._enqueue(engine, frame)

    def _over_age(self, frame: Frame) -> bool:
        max_age_ms = self._intake.policy(frame.source).max_age_ms
        return max_age_ms is not None and self._books.age_ms(frame) > max_age_ms

    def _enqueue(self, engine: Engine, frame: Frame) -> None:
        try:
            work = self._prepare(engine, frame)
        except BaseException:
            self._books.ledger.drop(frame, "failed")
            raise
        self._pending.append(work)
        work.started_ns = self._books.clock.now_ns()
        try:
            work.ticket = engine.enqueue(work.batch)
        except DeviceError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a library raises is retried, then re-raised
            work.error = error

    def _prepare(self, engine: Engine, frame: Frame) -> _Work:
        _, height, width, _ = engine.input_shape_nhwc
        placement = placement_of((frame.image.shape[1], frame.image.shape[0]), (width, height), self._fit)
        with self._books.meters.timed("fit"):
            batch = placement.input_from_frame(frame.image)[None]
        live = self._intake.policy(frame.source).when_full == "drop_oldest"
        return _Work(frame, placement, batch, live)

    def _finish(self, work: _Work) -> None:
        try:
            outputs = self._outputs_of(work)
            self._good_batches += 1
        except BaseException:
            self._books.ledger.drop(work.frame, "failed")
            raise
        self._books.meters.record_stage("infer", self._books.clock.now_ns() - work.started_ns)
        assert self._engine is not None
        inferred = Inferred(work.frame, work.placement, outputs, self._engine.decode)
        if self._aborted.is_set() or not self._outbox.put(inferred):
            self._books.ledger.drop(work.frame, "stopped")

    def _outputs_of(self, work: _Work) -> Outputs:
        try:
            if work.ticket is None:
                raise work.error or EngineError("the batch was never started")
            return _first(work.ticket)
        except DeviceError:
            raise
        except Exception as first:  # noqa: BLE001 - see above
            log.warning("inference failed, trying once more: %s", first)
        assert self._engine is not None
        try:
            return _first(self._engine.enqueue(work.batch))
        except DeviceError:
            raise
        except Exception as second:
            if self._good_batches < GOOD_BATCHES:  # a new one has failed as well
                raise
            log.warning("inference failed again, opening the engine anew: %s", second)
            self._good_batches = 0
        self._engine.close()
        self._engine = self._open_engine()
        return _first(self._engine.enqueue(work.batch))


@dataclass(slots=True, eq=False)
class _Work:
    frame: Frame
    placement: Placement
    batch: NDArray[np.uint8]
    live: bool
    ticket: Ticket | None = None
    error: Exception | None = None
    started_ns: int = 0


def _first(ticket: Ticket) -> Outputs:
    return {name: values[0] for name, values in ticket.result().items()}


class RenderWorker:
    """Turns engine output into results, draws them where a sink wants pictures, and offers them to the sinks."""

    def __init__(
        self,
        inbox: Channel[Inferred],
        ports: Sequence[Port],
        books: Books,
        *,
        draw: Callable[[Segmentation], Image] | None,
        lossless: Callable[[str], bool],
        admission: Admission,
    ) -> None:
        self._inbox = inbox
        self._ports = ports
        self._books = books
        self._draw = draw
        self._lossless = lossless
        self._admission = admission

    def __call__(self) -> None:
        """Run until the inbox is closed and empty."""
        try:
            while (inferred := self._inbox.get()) is not None:
                self._hand_over(inferred)
        finally:
            for inferred in self._inbox.abort():
                self._books.ledger.drop(inferred.frame, "stopped")
            for port in self._ports:
                port.finish()

    def _hand_over(self, inferred: Inferred) -> None:
        frame, ledger = inferred.frame, self._books.ledger
        try:
            with self._books.meters.timed("decode"):
                prediction = inferred.decode(inferred.outputs)
            segmentation = segmentation_of(frame, inferred.placement, prediction, self._books.clock)
            picture = self._picture(self._books.stamped(segmentation))
        except BaseException:
            ledger.drop(frame, "failed")
            raise
        for port in self._ports:
            port.offer(segmentation, picture, wait=self._lossless(frame.source))
        self._admission.done(frame.source)
        self._books.meters.record_result(self._books.age_ms(frame))
        ledger.resolve(frame)

    def _picture(self, segmentation: Segmentation) -> Image | None:
        if self._draw is None or not any(port.wants_picture for port in self._ports):
            return None
        with self._books.meters.timed("render"):
            picture = self._draw(segmentation)
        picture.flags.writeable = False
        return picture
