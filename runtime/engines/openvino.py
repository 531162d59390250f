"""OpenVINO on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.engines.contract import INPUT, OUTPUT, check_batch, check_graph
from vidseg.runtime.errors import EngineError


class OpenVinoEngine:
    """A graph in OpenVINO.

    Float graphs compute in f32: the library's own choice of bf16 is slow on a CPU without AMX. Every batch has a
    request of its own, so that `enqueue` returns at once.

    Args:
        model: a serialized ONNX graph of the contract.
        name: for messages.
        precision: what the graph computes in.
        threads: of the library's pool; None for one a core.

    Raises:
        EngineError: the library is missing, refuses the graph, or it is not of the contract.
    """

    def __init__(
        self, model: bytes, name: str = "model", precision: str = "fp32", *, threads: int | None = None
    ) -> None:
        try:
            import openvino
        except ImportError as error:
            raise EngineError(
                "the engine `openvino` is not installed", str(error), 'Install it: pip install "vidseg[openvino]".'
            ) from error
        properties: dict[str, object] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            properties["INFERENCE_NUM_THREADS"] = threads
        try:
            core = openvino.Core()
            self._compiled = core.compile_model(core.read_model(model, b""), "CPU", properties)
        except Exception as error:  # the library raises RuntimeError and others
            raise EngineError(f"{name}: OpenVINO cannot load it", _reason(error)) from error
        height, width = check_graph(
            name,
            {port.any_name: (_dtype(port), _shape(port)) for port in self._compiled.inputs},
            {port.any_name: _dtype(port) for port in self._compiled.outputs},
        )
        self._shape = (1, height, width, 3)
        self._name = name
        self._precision = precision
        self._device = f"CPU (OpenVINO {openvino.__version__.split('-')[0]})"
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

    def enqueue(self, batch: NDArray[np.uint8]) -> _Request:
        """Start a batch, (1, h, w, 3) uint8 BGR, and return at once.

        Raises:
            EngineError: the batch does not fit, the engine is closed, or the library failed.
        """
        if self._closed:
            raise EngineError(f"{self._name}: the engine is closed", "a batch", "Open a new one.")
        check_batch(batch, self._shape)
        try:
            request = self._compiled.create_infer_request()
            request.start_async({INPUT: batch}, share_inputs=True)
        except Exception as error:  # see above
            raise EngineError(f"{self._name}: OpenVINO failed", _reason(error)) from error
        return _Request(request, batch, self._name)

    def close(self) -> None:
        """Release the compiled graph."""
        if not self._closed:
            self._closed = True
            del self._compiled

    def __enter__(self) -> OpenVinoEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Request:
    def __init__(self, request: Any, batch: NDArray[np.uint8], name: str) -> None:
        self._request = request
        self._batch = batch  # shared with the library until the result is there
        self._name = name
        self._outputs: Mapping[str, NDArray[Any]] | None = None

    def result(self) -> Mapping[str, NDArray[Any]]:
        """Wait; `class_map`, (n, h, w) uint8."""
        if self._outputs is None:
            try:
                self._request.wait()
                self._outputs = {OUTPUT: self._request.get_tensor(OUTPUT).data.copy()}
            except Exception as error:  # see above
                raise EngineError(f"{self._name}: OpenVINO failed", _reason(error)) from error
        return self._outputs


def _dtype(port: Any) -> str:
    return str(np.dtype(port.get_element_type().to_dtype()))


def _shape(port: Any) -> list[object]:
    return [dim.get_length() if dim.is_static else str(dim) for dim in port.get_partial_shape()]


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]
