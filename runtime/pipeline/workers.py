"""What the infer and render threads do. Each worker is a callable; `Pipeline` owns the threads."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from vidseg.runtime.decoding import Decoder, Outputs, Prediction
from vidseg.runtime.engines import Engine, PlacedFrame, Ticket, takes_frames
from vidseg.runtime.errors import DeviceError, EngineError, OpeningCancelledError
from vidseg.runtime.frame import Frame, Image, Segmentation
from vidseg.runtime.geometry import Fit, Placement, placement_of
from vidseg.runtime.pipeline.admission import Admission
from vidseg.runtime.pipeline.books import Books
from vidseg.runtime.pipeline.channel import Channel
from vidseg.runtime.pipeline.intake import Intake
from vidseg.runtime.pipeline.ledger import DropCause
from vidseg.runtime.pipeline.ports import Port
from vidseg.runtime.segmenter import segmentation_of
from vidseg.runtime.view import View

log = logging.getLogger(__name__)

LOSSLESS_DEPTH = 2
"""Tickets in flight for recorded sources: the next upload overlaps with the execution before it."""


@dataclass(frozen=True, slots=True, eq=False)
class Inferred:
    """A frame and what the engine gave for the part of it that counts; `decode` turns that into a prediction."""

    frame: Frame
    view: View
    placement: Placement
    outputs: Outputs
    decode: Decoder


GOOD_BATCHES = 1000
"""Behind this many, an engine that was opened anew has proven itself and may be opened anew another time."""


class InferWorker:
    """The only user of the device: takes frames from the slots, keeps up to two batches in flight.

    A batch is what waits in the slots when the device is free, as many as the engine takes: the more sources there are,
    the fuller it gets, and no frame waits for another one. One that fails is tried once more, then the engine is opened
    again and it is tried a last time. If that engine fails twice too before it has proven itself, the run ends. A
    `DeviceError` is never retried: the device's state is lost for this process.
    """

    def __init__(
        self,
        open_engine: Callable[[], Engine],
        intake: Intake,
        outbox: Channel[Sequence[Inferred]],
        books: Books,
        *,
        admission: Admission,
        fit: Fit,
        view_of: Callable[[str], View],
        aborted: threading.Event,
    ) -> None:
        self._open_engine = open_engine
        self._intake = intake
        self._outbox = outbox
        self._books = books
        self._admission = admission
        self._fit = fit
        self._view_of = view_of
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
                self._drop(work.frames, "stopped")
            self._outbox.close()
            if self._engine is not None:
                self._engine.close()

    def _drop(self, frames: Sequence[Frame], cause: DropCause) -> None:
        for frame in frames:
            self._books.ledger.drop(frame, cause)

    def _step(self, engine: Engine) -> None:
        depth = LOSSLESS_DEPTH if all(not work.live for work in self._pending) else 1
        frames = self._take(engine.max_batch) if len(self._pending) < depth else []
        if frames:
            self._enqueue(engine, frames)
        elif self._pending:
            self._finish(self._pending.popleft())

    def _take(self, count: int) -> list[Frame]:
        """Frames that wait, at most `count`, sources in turn; waits for the first one where nothing is in flight."""
        frames: list[Frame] = []
        while len(frames) < count:
            frame = self._intake.take(wait=not self._pending and not frames)
            if frame is None:
                break
            self._admission.taken(frame.source)
            if self._over_age(frame):
                self._books.ledger.drop(frame, "over_age")
            else:
                frames.append(frame)
        return frames

    def _over_age(self, frame: Frame) -> bool:
        max_age_ms = self._intake.policy(frame.source).max_age_ms
        return max_age_ms is not None and self._books.age_ms(frame) > max_age_ms

    def _enqueue(self, engine: Engine, frames: Sequence[Frame]) -> None:
        try:
            work = self._prepare(engine, frames)
        except BaseException:
            self._drop(frames, "failed")
            raise
        self._pending.append(work)
        work.started_ns = self._books.clock.now_ns()
        try:
            with self._books.watchdog.working("infer"):
                work.ticket = work.start(engine)
        except DeviceError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a library raises is retried, then re-raised
            work.error = error

    def _prepare(self, engine: Engine, frames: Sequence[Frame]) -> _Work:
        _, height, width, _ = engine.input_shape_nhwc
        views = [self._view_of(frame.source) for frame in frames]
        images = [view.region(frame.image) for view, frame in zip(views, frames, strict=True)]
        placements = [placement_of((image.shape[1], image.shape[0]), (width, height), self._fit) for image in images]
        live = any(self._intake.policy(frame.source).when_full == "drop_oldest" for frame in frames)
        work = _Work(frames, views, images, placements, live)
        if not takes_frames(engine):
            with self._books.meters.timed("fit"):
                work.fit()
        return work

    def _finish(self, work: _Work) -> None:
        try:
            outputs = self._outputs_of(work)
            self._good_batches += 1
        except BaseException:
            self._drop(work.frames, "failed")
            raise
        self._books.meters.record_stage("infer", self._books.clock.now_ns() - work.started_ns)
        assert self._engine is not None
        decode = self._engine.decode
        batch = [
            Inferred(frame, view, placement, {name: values[number] for name, values in outputs.items()}, decode)
            for number, (frame, view, placement) in enumerate(
                zip(work.frames, work.views, work.placements, strict=True)
            )
        ]
        if self._aborted.is_set() or not self._outbox.put(batch):
            self._drop(work.frames, "stopped")

    def _outputs_of(self, work: _Work) -> Outputs:
        try:
            if work.ticket is None:
                raise work.error or EngineError("the batch was never started")
            with self._books.watchdog.working("infer"):
                return work.ticket.result()
        except DeviceError:
            raise
        except Exception as first:  # noqa: BLE001 - see above
            log.warning("inference failed, trying once more: %s", first)
        assert self._engine is not None
        try:
            with self._books.watchdog.working("infer"):
                return work.start(self._engine).result()
        except DeviceError:
            raise
        except Exception as second:
            if self._good_batches < GOOD_BATCHES:  # a new one has failed as well
                raise
            log.warning("inference failed again, opening the engine anew: %s", second)
            self._good_batches = 0
            fault = second
        self._engine.close()
        try:
            self._engine = self._open_engine()
        except OpeningCancelledError as cancelled:  # the run ends, and not for nothing
            raise fault from cancelled
        with self._books.watchdog.working("infer"):
            return work.start(self._engine).result()


@dataclass(slots=True, eq=False)
class _Work:
    """A batch. It can be started in any engine for the model: one that is opened anew may be of another kind."""

    frames: Sequence[Frame]
    views: Sequence[View]
    images: Sequence[Image]
    placements: Sequence[Placement]
    live: bool
    ticket: Ticket | None = None
    error: Exception | None = None
    started_ns: int = 0
    fitted: Sequence[Image] = ()

    def fit(self) -> None:
        """Lay the pictures on the model's input, here."""
        pairs = zip(self.images, self.placements, strict=True)
        self.fitted = [placement.input_from_frame(image) for image, placement in pairs]

    def start(self, engine: Engine) -> Ticket:
        """Give all of it to an engine, in pieces where that takes fewer at a time."""
        most = engine.max_batch
        pieces = [slice(first, first + most) for first in range(0, len(self.frames), most)]
        if len(pieces) == 1:
            return self._start(engine, pieces[0])
        return _Done([self._start(engine, piece).result() for piece in pieces])

    def _start(self, engine: Engine, piece: slice) -> Ticket:
        if takes_frames(engine):
            pairs = zip(self.images[piece], self.placements[piece], strict=True)
            return engine.enqueue_frames([PlacedFrame(image, placement) for image, placement in pairs])
        if not self.fitted:
            self.fit()
        fitted = self.fitted[piece]
        return engine.enqueue(fitted[0][None] if len(fitted) == 1 else np.stack(fitted))


class _Done:
    """A ticket for a batch that was worked on in pieces."""

    def __init__(self, pieces: Sequence[Outputs]) -> None:
        common = [name for name in pieces[0] if all(name in piece for piece in pieces)]
        self._outputs = {name: np.concatenate([piece[name] for piece in pieces]) for name in common}

    def result(self) -> Outputs:
        """The outputs by name."""
        return self._outputs


class RenderWorker:
    """Turns engine output into results, draws them where a sink wants pictures, and offers them to the sinks."""

    def __init__(
        self,
        inbox: Channel[Sequence[Inferred]],
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
        left: deque[Inferred] = deque()
        try:
            while (batch := self._inbox.get()) is not None:
                left.extend(batch)
                while left:
                    self._hand_over(left.popleft())
        finally:
            for inferred in (*left, *chain.from_iterable(self._inbox.abort())):
                self._books.ledger.drop(inferred.frame, "stopped")
            for port in self._ports:
                port.finish()

    def _hand_over(self, inferred: Inferred) -> None:
        frame, ledger = inferred.frame, self._books.ledger
        try:
            with self._books.watchdog.working("render"):
                with self._books.meters.timed("decode"):
                    prediction = inferred.decode(inferred.outputs)
                segmentation = self._segmentation(inferred, prediction)
                picture = self._picture(self._books.stamped(segmentation))
        except BaseException:
            ledger.drop(frame, "failed")
            raise
        for port in self._ports:
            port.offer(segmentation, picture, wait=self._lossless(frame.source))
        self._admission.done(frame.source)
        self._books.meters.record_result(self._books.age_ms(frame))
        ledger.resolve(frame)

    def _segmentation(self, inferred: Inferred, prediction: Prediction) -> Segmentation:
        frame, view = inferred.frame, inferred.view
        origin_xy = view.origin_xy(frame.image)
        found = segmentation_of(frame, inferred.placement, prediction, self._books.clock, origin_xy)
        if view.roi is not None:  # what the engine has drawn is the region alone
            found = replace(found, blended=None)
        return view.without_ignored(found)

    def _picture(self, segmentation: Segmentation) -> Image | None:
        if self._draw is None or not any(port.wants_picture for port in self._ports):
            return None
        with self._books.meters.timed("render"):
            picture = self._draw(segmentation)
        picture.flags.writeable = False
        return picture
