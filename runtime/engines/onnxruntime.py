"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.engines.contract import INPUT, OUTPUT, check_batch, check_graph
from vidseg.runtime.errors import EngineError


class OnnxRuntimeEngine:
    """A graph in ONNX Runtime.

    `enqueue` does the work itself: the CPU is the device, so there is nothing to overlap with. Threads do not spin
    while they wait, because the other stages need the cores.

    Args:
        model: a serialized ONNX graph of the contract.
        name: for messages.
        precision: what the graph computes in.
        threads: of the library's pool; None for one a core.

    Raises:
        EngineError: the library refuses the graph, or it is not of the contract.
    """

    def __init__(
        self, model: bytes, name: str = "model", precision: str = "fp32", *, threads: int | None = None
    ) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library's exceptions have no common base
            raise EngineError(f"{name}: ONNX Runtime cannot load it", str(error)[:300]) from error
        height, width = check_graph(
            name,
            {node.name: (_dtype(node.type), node.shape) for node in self._session.get_inputs()},
            {node.name: _dtype(node.type) for node in self._session.get_outputs()},
        )
        self._shape = (1, height, width, 3)
        self._name = name
        self._precision = precision
        self._device = f"CPU (ONNX Runtime {onnxruntime.__version__})"
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
        return self._precision

    def enqueue(self, batch: NDArray[np.uint8]) -> _Done:
        """Infer a batch, (1, h, w, 3) uint8 BGR.

        Raises:
            EngineError: the batch does not fit, the engine is closed, or the library failed.
        """
        if self._closed:
            raise EngineError(f"{self._name}: the engine is closed", "a batch", "Open a new one.")
        check_batch(batch, self._shape)
        try:
            (class_map,) = self._session.run([OUTPUT], {INPUT: batch})
        except Exception as error:  # see above
            raise EngineError(f"{self._name}: ONNX Runtime failed", str(error)[:300]) from error
        return _Done(class_map)

    def close(self) -> None:
        """Release the session."""
        if not self._closed:
            self._closed = True
            del self._session

    def __enter__(self) -> OnnxRuntimeEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Done:
    def __init__(self, class_map: NDArray[np.uint8]) -> None:
        self._outputs: Mapping[str, NDArray[Any]] = {OUTPUT: class_map}

    def result(self) -> Mapping[str, NDArray[Any]]:
        """`class_map`, (n, h, w) uint8."""
        return self._outputs


def _dtype(kind: str) -> str:
    return kind.removeprefix("tensor(").removesuffix(")")
