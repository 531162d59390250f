"""Engines: what infers. Each one wraps a single library, which is imported in its own file only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.decoding import Outputs, Prediction
from vidseg.runtime.frame import Image
from vidseg.runtime.geometry import Placement


class Ticket(Protocol):
    """A batch that is being worked on."""

    def result(self) -> Outputs:
        """Wait for the batch and return its outputs by name.

        The arrays belong to the caller and are never overwritten. Calling it again returns the same.

        Raises:
            EngineError: inference failed.
        """


class Engine(Protocol):
    """A model that is ready to infer. Used by one thread; a context manager; `close()` may be called twice."""

    @property
    def input_shape_nhwc(self) -> tuple[int, int, int, int]:
        """(max_batch, height, width, 3)."""

    @property
    def max_batch(self) -> int:
        """The largest batch that `enqueue` takes."""

    @property
    def device(self) -> str:
        """Where it runs, in words: "CPU (onnxruntime 1.20)"."""

    @property
    def precision(self) -> str:
        """`fp32`, `fp16` or `int8`."""

    def enqueue(self, batch: NDArray[np.uint8]) -> Ticket:
        """Start work on a batch, (n, h, w, 3) uint8 BGR, C-contiguous, n <= max_batch.

        Returns at once where the library allows. The batch must not change until `result()` has returned.

        Raises:
            EngineError: shape or dtype do not fit, or the engine is closed or broken.
        """

    def decode(self, outputs: Outputs) -> Prediction:
        """The prediction for one picture of a batch, from a ticket's outputs without their first axis.

        Work for the CPU that another thread may do while the device goes on; works on a closed engine too.
        """

    def close(self) -> None:
        """Give the device back. Idempotent."""

    def __enter__(self) -> Engine: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class PlacedFrame:
    """A picture of any size, and how it is laid on a model's input.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        placement: of its size.
    """

    image: Image
    placement: Placement


class FrameEngine(Engine, Protocol):
    """An engine that lays frames on the model's input itself, where it computes."""

    def enqueue_frames(self, frames: Sequence[PlacedFrame]) -> Ticket:
        """Start work on a batch of frames of any sizes, at most `max_batch`.

        Raises:
            EngineError: as `enqueue`.
        """


def takes_frames(engine: Engine) -> TypeGuard[FrameEngine]:
    """True for a `FrameEngine`. Asked for each batch, where `isinstance` of a protocol took 28 us."""
    return hasattr(engine, "enqueue_frames")


def predict(engine: Engine, image: Image) -> Prediction:
    """Infer one picture of the input's size, (h, w, 3) uint8 BGR, and wait for it.

    Raises:
        EngineError: the picture does not fit, or inference failed.
    """
    outputs = engine.enqueue(image[None]).result()
    return engine.decode({name: values[0] for name, values in outputs.items()})
