"""A plan in TensorRT: what it takes and gives, and giving it to a stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from vidseg.runtime.engines.graph import INPUT
from vidseg.runtime.engines.tensorrt.cuda import Address, Stream
from vidseg.runtime.engines.tensorrt.library import Library
from vidseg.runtime.errors import DeviceError, EngineError

_DTYPES: dict[str, type[np.generic]] = {"UINT8": np.uint8, "FLOAT": np.float32}
"""Of what goes in and out, by TensorRT's names. Its own table fails with some pairs of releases of it and of NumPy."""


class PlanRefusedError(EngineError):
    """TensorRT does not take a plan, though it was built with this release for this device."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output of a plan.

    Attributes:
        shape: for the largest batch, which is its first axis.
        dtype: `uint8` or `float32`.
    """

    shape: tuple[int, ...]
    dtype: type[np.generic]

    @property
    def nbytes(self) -> int:
        """For the largest batch."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize


def runtime_of(library: Library, dla_core: int | None = None) -> Any:
    """What loads plans of ours; it has to live as long as they do."""
    runtime = library.module.Runtime(library.logger)
    if dla_core is not None:
        runtime.DLA_core = dla_core
    if hasattr(runtime, "engine_host_code_allowed"):
        runtime.engine_host_code_allowed = True  # version-compatible plans have some; we made them
    return runtime


class PlanExecution:
    """A plan with one execution context. Its memory is used by one batch at a time: callers order their streams.

    Args:
        plan: for this device and this release of TensorRT, checked by its checksum: a damaged one can end the process.
        library: TensorRT.
        name: of the model, for messages.
        dla_core: where a plan for a DLA runs.

    Raises:
        PlanRefusedError: TensorRT refuses the plan.
        EngineError: it is none of a bundle's graph.
        DeviceError: memory is used up.
    """

    def __init__(self, plan: bytes, library: Library, name: str, dla_core: int | None = None) -> None:
        self._name = name
        self._library = library
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        self._dynamic = False
        self._batch = 0
        self._dla_core = dla_core
        try:
            self.inputs, self.outputs = self._load(plan)
        except BaseException:  # whoever looks at the error's frames must not keep it alive beyond the CUDA context
            self.close()
            raise

    def _load(self, plan: bytes) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
        name, library = self._name, self._library
        self._runtime = runtime_of(library, self._dla_core)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise PlanRefusedError(f"{name}: TensorRT refuses its plan", library.last_error())
        specs = self._specs()
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise DeviceError(
                f"{name}: the plan finds no room on the GPU",
                library.last_error(),
                "End other programs that use the GPU, or build it with a smaller batch.",
            )
        return specs

    @property
    def max_batch(self) -> int:
        """The largest batch of its optimization profile."""
        return self.inputs[INPUT].shape[0]

    def reshapes(self, batch: int) -> bool:
        """True where a batch of this size has another shape than the one before: that has to be done first."""
        return self._dynamic and batch != self._batch

    def give(self, batch: int, addresses: Mapping[str, Address], stream: Stream) -> None:
        """Put a batch in a stream; where it `reshapes`, nothing of the plan may be in flight.

        Args:
            batch: how many pictures.
            addresses: of all inputs and outputs on the device, C-contiguous.
            stream: where the work goes.

        Raises:
            EngineError: TensorRT does not take it.
        """
        if self.reshapes(batch):
            self._check(self._context.set_input_shape(INPUT, (batch, *self.inputs[INPUT].shape[1:])))
            self._batch = batch
        for tensor, address in addresses.items():
            self._check(self._context.set_tensor_address(tensor, address))
        self._check(self._context.execute_async_v3(stream.handle))

    def close(self) -> None:
        """Let go of it, in the order that TensorRT needs. Idempotent."""
        self._context = None
        self._engine = None
        self._runtime = None

    def _check(self, accepted: object) -> None:
        if accepted is False:
            raise EngineError(f"{self._name}: TensorRT failed", self._library.last_error())

    def _specs(self) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
        inputs: dict[str, TensorSpec] = {}
        outputs: dict[str, TensorSpec] = {}
        for index in range(self._engine.num_io_tensors):
            tensor = self._engine.get_tensor_name(index)
            is_input = self._engine.get_tensor_mode(tensor) == self._library.module.TensorIOMode.INPUT
            dtype = _DTYPES.get(self._engine.get_tensor_dtype(tensor).name)
            shape = tuple(self._engine.get_tensor_shape(tensor))
            if dtype is None or len(shape) < 3 or any(size < 1 for size in shape[1:]):
                raise EngineError(f"{self._name}: the plan's `{tensor}` is not of a bundle's graph", f"{shape}")
            (inputs if is_input else outputs)[tensor] = TensorSpec(shape, dtype)
        taken = inputs.get(INPUT)
        if list(inputs) != [INPUT] or taken is None or len(taken.shape) != 4 or taken.shape[3] != 3 or not outputs:
            raise EngineError(f"{self._name}: the plan is not of a bundle's graph", f"it takes {', '.join(inputs)}")
        self._dynamic = taken.shape[0] < 1
        batch = self._engine.get_tensor_profile_shape(INPUT, 0)[2][0] if self._dynamic else taken.shape[0]
        for specs in (inputs, outputs):
            for tensor, spec in specs.items():
                specs[tensor] = TensorSpec((batch, *spec.shape[1:]), spec.dtype)
        return inputs, outputs
