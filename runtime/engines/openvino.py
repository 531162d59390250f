"""OpenVINO on the CPU."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.decoding import Outputs
from vidseg.runtime.engines.graph import INPUT, GraphEngine, GraphOptions
from vidseg.runtime.errors import EngineError


class OpenVinoEngine(GraphEngine):
    """A graph in OpenVINO.

    Float graphs compute in f32: the library's own choice of bf16 is slow on a CPU without AMX. Every batch has a
    request of its own, so that `enqueue` returns at once.

    Args:
        model: a serialized ONNX graph of the contract.
        options: see `GraphOptions`.

    Raises:
        EngineError: the library is missing, refuses the graph, or it is not of the contract.
    """

    def __init__(self, model: bytes, options: GraphOptions | None = None) -> None:
        # Without its telemetry: importing the library would send an event, and keep a number in the user's home.
        sys.modules.setdefault("openvino_telemetry", cast(ModuleType, None))
        try:
            import openvino
        except ImportError as error:
            raise EngineError(
                "the engine `openvino` is not installed", str(error), 'Install it: pip install "vidseg[openvino]".'
            ) from error
        options = options or GraphOptions()
        super().__init__(options, f"CPU (OpenVINO {openvino.__version__.split('-')[0]})")
        properties: dict[str, object] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if options.threads is not None:
            properties["INFERENCE_NUM_THREADS"] = options.threads
        try:
            core = openvino.Core()
            graph = core.read_model(model, b"")
        except Exception as error:  # the library raises RuntimeError and others
            raise EngineError(f"{options.name}: OpenVINO cannot load it", _reason(error)) from error
        self._accept(
            {port.any_name: (_dtype(port), _shape(port)) for port in graph.inputs},
            {port.any_name: _dtype(port) for port in graph.outputs},
        )
        try:
            if graph.is_dynamic():
                graph.reshape({INPUT: self._shape})  # known sizes are folded and planned for
            for result in graph.get_results():
                if result.output(0).any_name not in self._options.fetch:
                    graph.remove_result(result)
            self._compiled = core.compile_model(graph, "CPU", properties)
        except Exception as error:  # see above
            raise EngineError(f"{options.name}: OpenVINO cannot load it", _reason(error)) from error

    def _start(self, batch: NDArray[np.uint8]) -> _Request:
        try:
            request = self._compiled.create_infer_request()
            request.start_async({INPUT: batch}, share_inputs=True)
        except Exception as error:  # see above
            raise EngineError(f"{self._options.name}: OpenVINO failed", _reason(error)) from error
        return _Request(request, batch, self._options)

    def _release(self) -> None:
        del self._compiled


class _Request:
    def __init__(self, request: Any, batch: NDArray[np.uint8], options: GraphOptions) -> None:
        self._request = request
        self._batch = batch  # shared with the library until the result is there
        self._options = options
        self._outputs: Outputs | None = None

    def result(self) -> Outputs:
        """Wait; the outputs by name."""
        if self._outputs is None:
            try:
                self._request.wait()
                self._outputs = {output: self._request.get_tensor(output).data.copy() for output in self._options.fetch}
            except Exception as error:  # see above
                raise EngineError(f"{self._options.name}: OpenVINO failed", _reason(error)) from error
        return self._outputs


def _dtype(port: Any) -> str:
    return str(np.dtype(port.get_element_type().to_dtype()))


def _shape(port: Any) -> list[object]:
    return [dim.get_length() if dim.is_static else str(dim) for dim in port.get_partial_shape()]


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]
