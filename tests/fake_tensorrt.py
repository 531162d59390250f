"""TensorRT on the fake GPU: the calls that running a plan takes, with its rules.

A plan is JSON here. The class of a pixel is its blue value divided by 32, as that of `FakeEngine`; the confidence is
the green value.
"""

from __future__ import annotations

import enum
import json
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.fake_cuda import FakeCuda
from tests.fake_streams import RuleBroken


def fake_plan(
    size_wh: tuple[int, int] = (8, 6),
    max_batch: int = 1,
    outputs: Sequence[str] = ("class_map",),
    *,
    dynamic: bool = False,
    image: str = "image",
    memory_bytes: int = 1 << 20,
) -> bytes:
    """What `FakeTensorRt` makes an engine of; `memory_bytes` are what its execution context allocates."""
    document = {
        "size_wh": size_wh, "max_batch": max_batch, "outputs": list(outputs), "dynamic": dynamic or max_batch > 1,
        "image": image, "memory_bytes": memory_bytes,
    }  # fmt: skip
    return b"FAKE" + json.dumps(document).encode()


class TensorIOMode(enum.Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class DataType(enum.Enum):
    FLOAT = 0
    UINT8 = 5


@dataclass(slots=True, eq=False)
class FakeTensorRt:
    """The module, for one device.

    Attributes:
        cuda: the device.
        refuses_runs: numbers of the runs, counted from 0, that TensorRT does not take.
        executed: batches so far.
        dla_cores: which each plan was loaded for, -1 for none.
    """

    cuda: FakeCuda
    refuses_runs: frozenset[int] = frozenset()
    executed: list[int] = field(default_factory=list)
    runs: int = 0
    dla_cores: list[int] = field(default_factory=list)
    TensorIOMode: Any = TensorIOMode
    DataType: Any = DataType

    def Runtime(self, _logger: object) -> _Runtime:  # noqa: N802 - the library's name
        return _Runtime(self)

    def registered(self, thing: object, name: str) -> None:
        """It has to be gone before the context is left."""
        self.cuda.objects.append(name)
        weakref.finalize(thing, self.cuda.objects.remove, name)


class _Runtime:
    engine_host_code_allowed = False
    DLA_core = -1

    def __init__(self, module: FakeTensorRt) -> None:
        module.cuda.check_thread()
        module.registered(self, "a runtime")
        self._module = module

    def deserialize_cuda_engine(self, plan: bytes) -> _Engine | None:
        self._module.cuda.check_thread()
        if not plan.startswith(b"FAKE"):
            return None
        self._module.dla_cores.append(self.DLA_core)
        return _Engine(self._module, self, json.loads(plan[4:]))


class _Engine:
    def __init__(self, module: FakeTensorRt, runtime: _Runtime, document: dict[str, Any]) -> None:
        module.registered(self, "an engine")
        self._module = module
        self._runtime = weakref.ref(runtime)
        self._document = document
        width, height = document["size_wh"]
        self._shapes = {document["image"]: (height, width, 3)} | dict.fromkeys(document["outputs"], (height, width))

    @property
    def num_io_tensors(self) -> int:
        return len(self._shapes)

    def get_tensor_name(self, index: int) -> str:
        return [str(name) for name in self._shapes][index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name == self._document["image"] else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType.FLOAT if name == "scores" else DataType.UINT8

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1 if self._document["dynamic"] else self._document["max_batch"], *self._shapes[name])

    def get_tensor_profile_shape(self, name: str, _profile: int) -> list[tuple[int, ...]]:
        return [(count, *self._shapes[name]) for count in (1, self._document["max_batch"], self._document["max_batch"])]

    def create_execution_context(self) -> _Context | None:
        if self._module.cuda.free_memory()[0] < self._document["memory_bytes"]:
            return None
        return _Context(self._module, self, self._document)


class _Context:
    def __init__(self, module: FakeTensorRt, engine: _Engine, document: dict[str, Any]) -> None:
        module.registered(self, "an execution context")
        self._module = module
        self._engine = weakref.ref(engine)
        self._document = document
        self._batch = 0 if document["dynamic"] else document["max_batch"]
        self._has_run = False
        self._addresses: dict[str, int] = {}
        self._memory = module.cuda.allocate(document["memory_bytes"])
        weakref.finalize(self, self._memory.free)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if self._engine() is None:
            raise RuleBroken("the engine is gone before its context")
        cuda = self._module.cuda
        if cuda.is_recording or cuda.is_busy(cuda.block_at(self._memory.address, 1)):
            raise RuleBroken("the shape is changed while the context is in use")
        self._has_run = False
        fits: bool = 1 <= shape[0] <= self._document["max_batch"] and name == self._document["image"]
        self._batch = shape[0] if fits else self._batch
        return fits

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, handle: int) -> bool:
        engine, module, count = self._engine(), self._module, self._batch
        cuda = module.cuda
        if engine is None:
            raise RuleBroken("the engine is gone before its context")
        self._module.runs += 1
        if self._module.runs - 1 in self._module.refuses_runs:
            return False
        if count < 1 or set(self._addresses) != {engine.get_tensor_name(i) for i in range(engine.num_io_tensors)}:
            return False
        if cuda.is_recording and not self._has_run:
            raise RuleBroken("TensorRT is recorded before it has run with the shape: it allocates then")
        self._has_run = True
        height, width = self._document["size_wh"][::-1]
        addresses = dict(self._addresses)
        image = addresses.pop(self._document["image"])
        taken, pixels = count * height * width * 3, count * height * width

        def run() -> None:
            module.executed.append(count)
            pictures = cuda.bytes_at(image, taken).reshape(-1, 3)
            for name, address in addresses.items():
                found = {"class_map": pictures[:, 0] >> 5, "confidence": pictures[:, 1]}[name]
                cuda.bytes_at(address, pixels)[:] = found

        cuda.give(
            cuda.stream_of(handle),
            run,
            reads=[cuda.block_at(image, taken)],
            writes=[
                cuda.block_at(self._memory.address, 1),
                *(cuda.block_at(address, pixels) for address in addresses.values()),
            ],
        )
        return True


def expected_classes(batch: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What a fake plan gives for a batch, (n, h, w, 3) uint8."""
    return np.asarray(batch[..., 0] >> 5)
