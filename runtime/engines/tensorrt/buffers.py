"""The memory of one batch in flight: pinned on the host, and on the device."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.engines.graph import INPUT
from vidseg.runtime.engines.tensorrt.cuda import Address, Cuda, Memory, Stream
from vidseg.runtime.engines.tensorrt.execution import TensorSpec


class Buffer:
    """A pinned array and its counterpart on the device: the same memory where the device is integrated.

    Args:
        cuda: the device.
        spec: what lies in it.
    """

    def __init__(self, cuda: Cuda, spec: TensorSpec) -> None:
        self._cuda = cuda
        self.host: NDArray[Any] = cuda.pinned(spec.shape, spec.dtype)
        self._memory: Memory | None = None
        try:
            if not cuda.integrated:
                self._memory = cuda.allocate(spec.nbytes)
            self.address: Address = self._memory.address if self._memory else cuda.address_of(self.host)
        except BaseException:  # whoever looks at the error's frames must not keep pinned memory beyond the context
            self.free()
            raise

    def upload(self, count: int, stream: Stream) -> None:
        """Bring the first `count` of the host's pictures to the device."""
        if self._memory is not None:
            self._cuda.upload(self.address, self.host[:count], stream)

    def download(self, count: int, stream: Stream) -> None:
        """Bring the first `count` of the device's results to the host."""
        if self._memory is not None:
            self._cuda.download(self.host[:count], self.address, stream)

    def free(self) -> None:
        """Give the device's memory back; nothing may be left to do with it. Idempotent."""
        if self._memory is not None:
            self._memory.free()
        self.host = np.empty(0)  # pinned memory is freed when nobody has the array any more


class Buffers:
    """All of a batch.

    Args:
        cuda: the device.
        inputs, outputs: of the plan.
    """

    def __init__(self, cuda: Cuda, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec]) -> None:
        with ExitStack() as made:  # what was allocated before memory ran out is given back
            self._all: dict[str, Buffer] = {}
            for name, spec in {**inputs, **outputs}.items():
                self._all[name] = Buffer(cuda, spec)
                made.callback(self._all[name].free)
            made.pop_all()
        self.image = self._all[INPUT]
        self.outputs = {name: self._all[name] for name in outputs}
        self.addresses: dict[str, Address] = {name: buffer.address for name, buffer in self._all.items()}

    def free(self) -> None:
        """Give the device's memory back. Idempotent."""
        for buffer in self._all.values():
            buffer.free()
