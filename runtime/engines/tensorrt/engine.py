"""TensorRT as an engine: two batches in flight, copies beside the computing of their neighbours."""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.decoding import BLENDED, CLASS_MAP, Outputs, Prediction, decode_class_map
from vidseg.runtime.engines import PlacedFrame
from vidseg.runtime.engines.graph import INPUT, check_batch
from vidseg.runtime.engines.tensorrt.buffers import Buffers
from vidseg.runtime.engines.tensorrt.cuda import Cuda, Event, Graph, OutOfMemoryError
from vidseg.runtime.engines.tensorrt.execution import PlanExecution
from vidseg.runtime.engines.tensorrt.frames import FrameMemory
from vidseg.runtime.engines.tensorrt.kernels import FrameKernels
from vidseg.runtime.engines.tensorrt.library import Library
from vidseg.runtime.engines.tensorrt.tables import Look
from vidseg.runtime.errors import DeviceError, EngineError

log = logging.getLogger(__name__)

SLOTS = 2
"""Batches in flight: while one computes, the next one is copied in, or the one before out."""

MIN_BATCH_GAIN = 0.05
"""A larger batch is offered only where a picture in it takes less time by this share."""

_TIMED_RUNS = 5


@dataclass(frozen=True, slots=True)
class TensorRtOptions:
    """How a plan is run.

    Attributes:
        name: of the model, for messages.
        precision: what the plan computes in.
        device: in words.
        fetch: names of the outputs that are wanted.
        cuda_graphs: give the device its work in one call; only plans for a batch of one.
        look: draw results over frames on the device; None: not there.
        dla_core: where a plan for a DLA runs.
    """

    name: str = "model"
    precision: str = "fp16"
    device: str = "GPU"
    fetch: tuple[str, ...] = (CLASS_MAP,)
    cuda_graphs: bool = False
    look: Look | None = None
    dla_core: int | None = None


class TensorRtEngine:
    """A plan on a device. The thread that opens it has the device's context, uses the engine and closes it.

    A thread that ends without closing it takes the process with it: pycuda aborts. The main thread's is closed at exit.
    Everything is allocated here, and every shape has been run once: what does not fit fails now.

    Args:
        plan: see `PlanExecution`.
        library: TensorRT.
        cuda: the device; the engine enters and leaves it.
        options: see `TensorRtOptions`.

    Raises:
        EngineError: TensorRT refuses the plan.
        DeviceError: memory is used up, or the device has failed.
    """

    def __init__(self, plan: bytes, library: Library, cuda: Cuda, options: TensorRtOptions | None = None) -> None:
        self._options = options = options or TensorRtOptions()
        self._thread = threading.get_ident()
        self._closed = False
        self._computed: Event | None = None
        with ExitStack() as opened:
            opened.enter_context(cuda)
            self._execution = PlanExecution(plan, library, options.name, options.dla_core)
            opened.callback(self._execution.close)
            self._fits = True
            kernels = FrameKernels(cuda)
            opened.callback(kernels.close)
            self._slots: list[_Slot] = []
            opened.callback(self._free_slots)
            for _ in range(SLOTS):
                self._slots.append(_Slot(cuda, self._execution, kernels, options.look))
            missing = [name for name in options.fetch if name not in self._execution.outputs]
            if missing:
                raise EngineError(
                    f"{options.name}: the plan does not give `{missing[0]}`", ", ".join(self._execution.outputs)
                )
            self._next = 0
            self._max_batch = 1
            self._warm_up(cuda)
            self._opened = opened.pop_all()
        atexit.register(self._close_at_exit)  # a context that is still entered then ends the process with an abort

    @property
    def input_shape_nhwc(self) -> tuple[int, int, int, int]:
        """(max_batch, height, width, 3)."""
        _, height, width, _ = self._execution.inputs[INPUT].shape
        return (self._max_batch, height, width, 3)

    @property
    def max_batch(self) -> int:
        """The largest batch of the plan, where that was measured to gain; else 1."""
        return self._max_batch

    @property
    def device(self) -> str:
        """The GPU, and TensorRT's version."""
        return self._options.device

    @property
    def precision(self) -> str:
        """`fp32`, `fp16` or `int8`."""
        return self._options.precision

    @property
    def records_graphs(self) -> bool:
        """True where the device gets its work in one call."""
        return all(slot.graph is not None for slot in self._slots)

    def enqueue(self, batch: NDArray[np.uint8]) -> _Ticket:
        """Start a batch, (n, h, w, 3) uint8 BGR. Unlike others, it may be changed as soon as this returns.

        Raises:
            EngineError: the batch does not fit, the engine is closed, or another thread's.
            DeviceError: the device has failed.
        """
        self._check_thread()
        check_batch(batch, self.input_shape_nhwc)
        slot = self._free_slot()
        slot.buffers.image.host[: len(batch)] = batch
        return self._start(slot, len(batch))

    def enqueue_frames(self, frames: Sequence[PlacedFrame]) -> _Ticket:
        """Start a batch of frames of any sizes, laid on the input by the device; drawn over, where it has a look.

        Frames may be changed as soon as this returns. Where they find no room, the CPU lays them on the input from then
        on, and nothing is drawn.

        Raises:
            EngineError: there are none or too many, the engine is closed, or another thread's.
            DeviceError: the device has failed.
        """
        self._check_thread()
        if not 1 <= len(frames) <= self._max_batch:
            raise EngineError(f"{self._options.name}: a batch is 1 to {self._max_batch} frames", f"{len(frames)}")
        slot = self._free_slot()
        image = slot.buffers.image
        if self._fits:
            try:
                slot.frames.fit(frames, image.address, slot.stream)
                return self._start(slot, len(frames), frames)
            except OutOfMemoryError as error:
                log.warning("frames are fitted on the CPU from now on: %s", error)
                self._fits = False
            except EngineError:
                slot.stream.synchronize()  # the slot's memory is free again
                raise
        for number, frame in enumerate(frames):
            image.host[number] = frame.placement.input_from_frame(frame.image)
        return self._start(slot, len(frames))

    def decode(self, outputs: Outputs) -> Prediction:
        """See `Engine.decode`."""
        return decode_class_map(outputs)

    def close(self) -> None:
        """Let go of the device. Idempotent.

        Raises:
            EngineError: called by another thread than the one that opened it, which alone can free what it has.
        """
        if self._closed:
            return
        self._check_thread()
        atexit.unregister(self._close_at_exit)
        with self._opened:
            for slot in self._slots:
                if slot.ticket is not None:
                    slot.ticket.collect()
                with suppress(EngineError, DeviceError):  # whoever waited for it was told
                    slot.stream.synchronize()
            self._closed = True

    def __enter__(self) -> TensorRtEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _close_at_exit(self) -> None:
        with suppress(EngineError, DeviceError):  # another thread's, which has ended
            self.close()

    def _free_slots(self) -> None:
        """Streams and events go with them: nothing of the device may be held beyond its context."""
        self._computed = None
        while self._slots:
            self._slots.pop().free()

    def _check_thread(self) -> None:
        if self._closed:
            raise EngineError(f"{self._options.name}: the engine is closed", "a batch", "Open a new one.")
        if threading.get_ident() != self._thread:
            raise EngineError(
                f"{self._options.name}: the engine is another thread's", "", "Use and close it where it was opened."
            )

    def _free_slot(self) -> _Slot:
        slot = self._slots[self._next]
        self._next = (self._next + 1) % len(self._slots)
        if slot.ticket is not None:
            slot.ticket.collect()
        return slot

    def _start(self, slot: _Slot, count: int, fitted: Sequence[PlacedFrame] = ()) -> _Ticket:
        """What is in a slot's input goes through the plan: on the host, or where frames were fitted, on the device."""
        try:
            if not fitted:
                slot.buffers.image.upload(count, slot.stream)
            self._compute(slot, count)
            if fitted:
                class_maps = slot.buffers.outputs[CLASS_MAP]
                _, height, width = class_maps.host.shape
                slot.frames.draw(fitted, class_maps.address, (width, height), slot.stream)
            for name in self._options.fetch:
                slot.buffers.outputs[name].download(count, slot.stream)
            slot.done.record(slot.stream)
        except EngineError:
            slot.stream.synchronize()  # the slot's memory is free again
            raise
        slot.ticket = _Ticket(self, slot, count, fitted)
        return slot.ticket

    def _compute(self, slot: _Slot, count: int) -> None:
        if self._computed is not None:
            slot.stream.wait(self._computed)  # one batch at a time uses the plan's memory
            if self._execution.reshapes(count):
                self._computed.synchronize()
        graph = slot.graph
        if graph is not None:
            graph.launch(slot.stream)
        else:
            self._execution.give(count, slot.buffers.addresses, slot.stream)
        slot.computed.record(slot.stream)
        self._computed = slot.computed

    def outputs_of(self, slot: _Slot, count: int, fitted: Sequence[PlacedFrame]) -> Outputs:
        """Wait for a slot's batch and copy what came out."""
        self._check_thread()
        slot.done.synchronize()
        found = {name: slot.buffers.outputs[name].host[:count].copy() for name in self._options.fetch}
        pictures = slot.frames.pictures(fitted) if fitted else None
        return found if pictures is None else {**found, BLENDED: pictures}

    def _warm_up(self, cuda: Cuda) -> None:
        """Run every shape in every slot; record graphs; find out whether a batch gains."""
        for slot in self._slots:
            slot.buffers.image.host[:] = 0
            for count in {1, self._execution.max_batch}:
                self._start(slot, count).result()
        if self._options.cuda_graphs:
            self._record_graphs(cuda)
        if self._execution.max_batch > 1:
            alone, together = (self._duration_ms(cuda, count) for count in (1, self._execution.max_batch))
            if together / self._execution.max_batch < alone * (1 - MIN_BATCH_GAIN):
                self._max_batch = self._execution.max_batch

    def _record_graphs(self, cuda: Cuda) -> None:
        if self._execution.max_batch > 1:
            log.warning("%s: no CUDA graphs: its plan is for more than one picture at a time", self._options.name)
            return
        for slot in self._slots:
            slot.graph = cuda.capture(slot.stream, lambda slot=slot: self._give_one(slot))  # type: ignore[misc]
            self._start(slot, 1).result()  # it still runs, recorded or not
            if slot.graph is None:
                log.warning("%s: no CUDA graphs: its plan cannot be recorded", self._options.name)
                return

    def _give_one(self, slot: _Slot) -> None:
        self._execution.give(1, slot.buffers.addresses, slot.stream)

    def _duration_ms(self, cuda: Cuda, count: int) -> float:
        """Time of the device for a batch, the least of a few."""
        slot = self._slots[0]
        before, behind = cuda.event(timing=True), cuda.event(timing=True)
        found = []
        for _ in range(_TIMED_RUNS):
            before.record(slot.stream)
            self._execution.give(count, slot.buffers.addresses, slot.stream)
            behind.record(slot.stream)
            behind.synchronize()
            found.append(behind.elapsed_ms(before))
        return min(found)


class _Slot:
    """One batch in flight."""

    def __init__(self, cuda: Cuda, execution: PlanExecution, kernels: FrameKernels, look: Look | None) -> None:
        self.graph: Graph | None = None
        self.ticket: _Ticket | None = None
        with ExitStack() as made:
            self.buffers = Buffers(cuda, execution.inputs, execution.outputs)
            made.callback(self.buffers.free)
            self.frames = FrameMemory(cuda, kernels, look)
            made.callback(self.frames.free)
            self.stream = cuda.stream()
            self.computed = cuda.event()
            self.done = cuda.event()
            made.pop_all()

    def free(self) -> None:
        if self.graph is not None:
            self.graph.free()
        self.frames.free()
        self.buffers.free()


class _Ticket:
    def __init__(self, engine: TensorRtEngine, slot: _Slot, count: int, fitted: Sequence[PlacedFrame]) -> None:
        self._engine = engine
        self._slot: _Slot | None = slot
        self._count = count
        self._fitted = fitted
        self._outputs: Outputs | None = None
        self._error: Exception | None = None

    def collect(self) -> None:
        """Take the results out of the slot, or what went wrong; it is free then."""
        slot, self._slot = self._slot, None
        if slot is None:
            return
        slot.ticket = None
        try:
            self._outputs = self._engine.outputs_of(slot, self._count, self._fitted)
        except (EngineError, DeviceError) as error:
            self._error = error

    def result(self) -> Outputs:
        """Wait; the outputs by name."""
        self.collect()
        if self._error is not None:
            raise self._error
        assert self._outputs is not None
        return self._outputs
