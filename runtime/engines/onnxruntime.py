"""ONNX Runtime on the CPU."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.decoding import Outputs
from vidseg.runtime.engines.graph import INPUT, GraphEngine, GraphOptions
from vidseg.runtime.errors import EngineError

BATCH_AXIS = "batch"
"""Name of the first axis of a graph's input and outputs, where it takes any number of pictures."""


def import_onnxruntime() -> Any:
    """The library, without its telemetry: it would keep a device's number in the user's home and send events."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


class OnnxRuntimeEngine(GraphEngine):
    """A graph in ONNX Runtime.

    `enqueue` does the work itself: the CPU is the device, so there is nothing to overlap with. Threads do not spin
    while they wait, because the other stages need the cores.

    Args:
        model: a serialized ONNX graph of the contract.
        options: see `GraphOptions`.

    Raises:
        EngineError: the library refuses the graph, or it is not of the contract.
    """

    def __init__(self, model: bytes, options: GraphOptions | None = None) -> None:
        onnxruntime = import_onnxruntime()
        options = options or GraphOptions()
        super().__init__(options, f"CPU (ONNX Runtime {onnxruntime.__version__})")
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 4
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        settings.add_free_dimension_override_by_name(BATCH_AXIS, 1)  # known sizes are folded and planned for
        if options.exact:
            settings.add_session_config_entry("session.disable_quant_qdq", "1")
        if options.threads is not None:
            settings.intra_op_num_threads = options.threads
        try:
            self._session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library's exceptions have no common base
            raise EngineError(f"{options.name}: ONNX Runtime cannot load it", str(error)[:300]) from error
        self._accept(
            {node.name: (_dtype(node.type), node.shape) for node in self._session.get_inputs()},
            {node.name: _dtype(node.type) for node in self._session.get_outputs()},
        )
        self._run_options = onnxruntime.RunOptions()
        self._run_options.only_execute_path_to_fetches = True

    def _start(self, batch: NDArray[np.uint8]) -> _Done:
        try:
            results = self._session.run(self._options.fetch, {INPUT: batch}, self._run_options)
        except Exception as error:  # see above
            raise EngineError(f"{self._options.name}: ONNX Runtime failed", str(error)[:300]) from error
        return _Done(dict(zip(self._options.fetch, results, strict=True)))

    def _release(self) -> None:
        del self._session


class _Done:
    def __init__(self, outputs: Outputs) -> None:
        self._outputs = outputs

    def result(self) -> Outputs:
        """The outputs by name."""
        return self._outputs


def _dtype(kind: str) -> str:
    name = kind.removeprefix("tensor(").removesuffix(")")
    return "float32" if name == "float" else name
