"""What all engines for a bundle's ONNX graph share: the contract of the graph, and the life of an engine.

A graph takes `image`, uint8 (n, h, w, 3), and gives `class_map`, uint8 (n, h, w); beside it `confidence` of the same
kind, and `scores`, float32 (n, classes, h', w'), from before its last upsampling where it has one. Only what is wanted
is computed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.decoding import CLASS_MAP, CONFIDENCE, SCORES, Decoder, Outputs, Prediction, decode_class_map
from vidseg.runtime.engines import Ticket
from vidseg.runtime.errors import EngineError

INPUT = "image"
_DTYPES = {CLASS_MAP: "uint8", CONFIDENCE: "uint8", SCORES: "float32"}


@dataclass(frozen=True, slots=True)
class GraphOptions:
    """How a graph is loaded.

    Attributes:
        name: for messages.
        precision: what the graph computes in.
        threads: of the library's pool; None for one a core.
        fetch: names of the outputs that are wanted; the others cost nothing.
        decode: see `Engine.decode`.
        exact: quantized values are computed as written, in float, where the library can: slow, but the same everywhere.
    """

    name: str = "model"
    precision: str = "fp32"
    threads: int | None = None
    fetch: tuple[str, ...] = (CLASS_MAP,)
    decode: Decoder = decode_class_map
    exact: bool = False


class GraphEngine(ABC):
    """An engine around a graph. What differs between libraries is `_start` and `_release`."""

    def __init__(self, options: GraphOptions, device: str) -> None:
        self._options = options
        self._device = device
        self._shape = (1, 0, 0, 3)
        self._closed = False

    @property
    def input_shape_nhwc(self) -> tuple[int, int, int, int]:
        """(1, height, width, 3)."""
        return self._shape

    @property
    def max_batch(self) -> int:
        """Always 1."""
        return 1

    @property
    def device(self) -> str:
        """The CPU, and the library's version."""
        return self._device

    @property
    def precision(self) -> str:
        """`fp32`, `fp16` or `int8`."""
        return self._options.precision

    def enqueue(self, batch: NDArray[np.uint8]) -> Ticket:
        """Start a batch, (1, h, w, 3) uint8 BGR.

        Raises:
            EngineError: the batch does not fit, the engine is closed, or the library failed.
        """
        if self._closed:
            raise EngineError(f"{self._options.name}: the engine is closed", "a batch", "Open a new one.")
        check_batch(batch, self._shape)
        return self._start(batch)

    def decode(self, outputs: Outputs) -> Prediction:
        """See `Engine.decode`."""
        return self._options.decode(outputs)

    def close(self) -> None:
        """Release what the library holds. Idempotent."""
        if not self._closed:
            self._closed = True
            self._release()

    def __enter__(self) -> GraphEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self, inputs: dict[str, tuple[str, Sequence[object]]], outputs: dict[str, str]) -> None:
        """Check a loaded graph's inputs (type and shape by name) and outputs (type by name).

        Raises:
            EngineError: the graph is not of the contract, or lacks an output that is wanted.
        """
        self._shape = _input_shape(self._options.name, inputs)
        _check_outputs(self._options, outputs)

    @abstractmethod
    def _start(self, batch: NDArray[np.uint8]) -> Ticket:
        """Start a batch that fits, and fetch the outputs that are wanted."""

    @abstractmethod
    def _release(self) -> None:
        """Let go of the library's objects; called once."""


def _input_shape(name: str, inputs: dict[str, tuple[str, Sequence[object]]]) -> tuple[int, int, int, int]:
    kind, shape = inputs.get(INPUT, ("", ()))
    if list(inputs) != [INPUT] or kind != "uint8" or len(shape) != 4 or shape[3] != 3:
        raise EngineError(
            f"{name}: the graph does not take `{INPUT}`, uint8 (n, h, w, 3)",
            ", ".join(f"{key} {kind} {list(shape)}" for key, (kind, shape) in inputs.items()),
            "Export the model with `vidseg export`.",
        )
    _, height, width, _ = shape
    if not isinstance(height, int) or not isinstance(width, int):
        raise EngineError(f"{name}: the graph's input has no fixed size", f"{height} x {width}")
    return (1, height, width, 3)


def _check_outputs(options: GraphOptions, outputs: dict[str, str]) -> None:
    for output in options.fetch:
        wanted = _DTYPES.get(output, "float32")
        if outputs.get(output) != wanted:
            raise EngineError(
                f"{options.name}: the graph does not give `{output}`, {wanted}",
                ", ".join(f"{key} {kind}" for key, kind in outputs.items()),
                "Export the model with `vidseg export`.",
            )


def check_batch(batch: NDArray[np.uint8], input_shape_nhwc: tuple[int, int, int, int]) -> None:
    """Check that an engine takes a batch.

    Raises:
        EngineError: its shape or type is another one, or it is not C-contiguous.
    """
    fits = batch.ndim == 4 and 1 <= batch.shape[0] <= input_shape_nhwc[0] and batch.shape[1:] == input_shape_nhwc[1:]
    if batch.dtype != np.uint8 or not fits or not batch.flags.c_contiguous:
        raise EngineError(
            f"the batch does not fit {input_shape_nhwc} uint8, C-contiguous", f"{batch.shape} {batch.dtype}"
        )
