"""A GPU that is none: keeps CUDA's rules, and fails a test that breaks one.

Work is done as late as a device may do it, when somebody waits for it: what reads a result too early, or changes what
is still to be read, gets wrong values. Each access to memory is checked against those before it: two that touch the
same bytes, one of them writing, have to be ordered by a stream, an event, or somebody who waited (a race detector by
vector clocks: Mattern, Virtual time and global states of distributed systems, 1989).
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tests.fake_streams import (
    Clock,
    FakeBlock,
    FakeEvent,
    FakeFunction,
    FakeGraph,
    FakeKernel,
    FakeStream,
    RuleBroken,
    merged,
)
from vidseg.runtime.engines.tensorrt.cuda import Address, Event, Graph, Memory, OutOfMemoryError, Stream
from vidseg.runtime.errors import DeviceError, EngineError


class FakeCuda:
    """See `Cuda`.

    Args:
        memory_bytes: of the device.
        integrated: see `Cuda`.
        functions: kernels by name.
        faults: raised by the work with that number, counted from 0 over all streams, when somebody waits for it; a
            `DeviceError` is raised by everything behind it too.
        records: whether work can be recorded.
        refused_launches: numbers of the launches of kernels, counted from 0, that are an error at once.
    """

    def __init__(
        self,
        memory_bytes: int = 1 << 30,
        *,
        integrated: bool = False,
        functions: Mapping[str, FakeFunction] | None = None,
        faults: Mapping[int, Exception] | None = None,
        records: bool = True,
        refused_launches: frozenset[int] = frozenset(),
    ) -> None:
        self._memory_bytes = memory_bytes
        self._integrated = integrated
        self.functions = dict(functions or {})
        self._faults = dict(faults or {})
        self._records = records
        self._refused_launches = refused_launches
        self._launches = 0
        self._thread = 0
        self._entered = 0
        self._blocks: list[FakeBlock] = []
        self._pinned: list[weakref.ref[Any]] = []
        self._next_address = 1 << 32
        self._streams: dict[int, FakeStream] = {}
        self._lost: DeviceError | None = None
        self._host: Clock = {}
        self.works = 0
        self.graph_launches = 0
        self.objects: list[str] = []  # of libraries, that have to be gone before the context is left
        self._recording: _Recording | None = None

    @property
    def integrated(self) -> bool:
        return self._integrated

    def __enter__(self) -> FakeCuda:
        if self._entered and self._thread != threading.get_ident():
            raise RuleBroken("the context is entered by two threads")
        self._thread = threading.get_ident()
        self._entered += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.check_thread()
        self._entered -= 1
        if self._entered:
            return
        if self.objects:
            raise RuleBroken(f"the context is left before {self.objects[0]} is gone")
        left = [block for block in self._blocks if block.alive and block.on_device]
        if left:
            raise RuleBroken(f"{len(left)} allocations are never freed, the first of {left[0].values.nbytes} bytes")
        if not self._lost and any(array() is not None for array in self._pinned):
            raise RuleBroken("the context is left before a pinned array is gone")
        self._entered = 0

    def check_thread(self) -> None:
        """Every call has to come from the thread that entered."""
        if not self._entered:
            raise RuleBroken("no context is current: it was left, or never entered")
        if threading.get_ident() != self._thread:
            raise RuleBroken("no context is current in this thread")

    def _check(self) -> None:
        self.check_thread()
        if self._lost:
            raise self._lost

    @property
    def is_recording(self) -> bool:
        """Between the beginning and the end of `capture`."""
        return self._recording is not None

    def refuse_while_recording(self, what: str) -> None:
        """The driver allows no call that waits, or may wait, in the thread that records; the recording is spoilt."""
        if self._recording is not None:
            self._recording.is_spoilt = True
            raise EngineError("CUDA failed", f"{what}: operation not permitted when stream is capturing")

    def allocate(self, size: int) -> Memory:
        self._check()
        self.refuse_while_recording("an allocation")
        if size <= 0:
            raise EngineError("CUDA failed", "invalid argument: an allocation of no bytes")
        if self.free_memory()[0] < size:
            raise OutOfMemoryError("the GPU's memory is used up", f"{size} bytes")
        return _FakeMemory(self, self._block(np.full(size, 0xCD, np.uint8), on_device=True))

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        self._check()
        self.refuse_while_recording("an allocation")
        values = np.full(prod(shape) * np.dtype(dtype).itemsize, 0xAB, np.uint8)
        self._block(values, on_device=False)
        array: NDArray[Any] = np.frombuffer(values.data, dtype).reshape(shape)
        owner = array if array.base is None or array.base.__class__ is not np.ndarray else array.base
        self._pinned.append(weakref.ref(owner))
        return array

    def _block(self, values: NDArray[np.uint8], *, on_device: bool) -> FakeBlock:
        block = FakeBlock(self._next_address, values, on_device)
        self._next_address += -(-values.nbytes // 256) * 256 + 4096  # what runs over the end hits nothing
        self._blocks.append(block)
        return block

    def address_of(self, pinned: NDArray[Any]) -> Address:
        self._check()
        if not self._integrated:
            raise RuleBroken("what is pinned has an address on integrated devices only")
        block, offset = self._pinned_block(pinned)
        return block.address + offset

    def _pinned_block(self, values: NDArray[Any]) -> tuple[FakeBlock, int]:
        if not values.flags.c_contiguous:
            raise RuleBroken("a copy of an array that is not contiguous")
        start = values.__array_interface__["data"][0]
        for block in self._blocks:
            first = block.values.__array_interface__["data"][0]
            if not block.on_device and first <= start and start + values.nbytes <= first + block.values.nbytes:
                return block, start - first
        raise RuleBroken("an asynchronous copy of memory that is not pinned")

    def _device_block(self, address: Address, size: int) -> tuple[FakeBlock, int]:
        for block in self._blocks:
            if block.address <= address < block.address + max(block.values.nbytes, 1):
                if not block.alive:
                    raise RuleBroken("memory is used after it was freed")
                if address + size > block.address + block.values.nbytes:
                    raise RuleBroken(f"{size} bytes run over the end of {block.values.nbytes}")
                return block, address - block.address
        raise RuleBroken(f"no memory at {address:#x}")

    def bytes_at(self, address: Address, size: int) -> NDArray[np.uint8]:
        """The device's memory itself, for what runs on it."""
        block, offset = self._device_block(address, size)
        return block.values[offset : offset + size]

    def upload(self, memory: Address, values: NDArray[Any], stream: Stream) -> None:
        self._check()
        source, offset = self._pinned_block(values)
        target, _ = self._device_block(memory, values.nbytes)
        size = values.nbytes

        def run() -> None:
            self.bytes_at(memory, size)[:] = source.values[offset : offset + size]

        self.give(stream, run, reads=[source], writes=[target])

    def download(self, values: NDArray[Any], memory: Address, stream: Stream) -> None:
        self._check()
        if not values.flags.writeable:
            raise RuleBroken("a copy to an array that is read-only")
        target, offset = self._pinned_block(values)
        source, _ = self._device_block(memory, values.nbytes)
        size = values.nbytes

        def run() -> None:
            target.values[offset : offset + size] = self.bytes_at(memory, size)

        self.give(stream, run, reads=[source], writes=[target])

    def block_at(self, address: Address, size: int) -> FakeBlock:
        """For `give`: the memory that holds these bytes."""
        return self._device_block(address, size)[0]

    def give(
        self, stream: Stream, run: Callable[[], None], reads: Sequence[FakeBlock], writes: Sequence[FakeBlock]
    ) -> None:
        """Put work in a stream, ordered behind all that touches the same memory."""
        self._check()

        def issue(where: FakeStream) -> None:
            if any(not block.alive for block in (*reads, *writes)):
                raise RuleBroken("memory is used after it was freed")
            where.append(self._faulty(run), reads, writes)

        assert isinstance(stream, FakeStream)
        if self._recording is None:
            issue(stream)
        elif stream is self._recording.stream:
            self._recording.issued.append(issue)
        else:
            raise RuleBroken("work for another stream while one is recorded")

    def _faulty(self, run: Callable[[], None]) -> Callable[[], None]:
        fault = self._faults.get(self.works)
        self.works += 1

        def checked() -> None:
            if fault is not None:
                if isinstance(fault, DeviceError):
                    self._lost = fault
                raise fault
            run()

        return checked

    def stream(self) -> Stream:
        self._check()
        stream = FakeStream(self, len(self._streams) + 1)
        self._streams[stream.handle] = stream
        return stream

    def stream_of(self, handle: int) -> FakeStream:
        """The stream that a library was given by its handle."""
        if handle not in self._streams:
            raise RuleBroken(f"no stream has the handle {handle}")
        return self._streams[handle]

    def event(self, *, timing: bool = False) -> Event:
        self._check()
        return FakeEvent(self, timing=timing)

    def kernel(self, ptx: bytes, name: str, signature: str) -> FakeKernel:
        self._check()
        if name.encode() not in ptx:
            raise EngineError("CUDA failed", f"named symbol not found: {name}")
        return FakeKernel(self, self.functions.get(name), signature)

    def count_launch(self) -> None:
        """A kernel is launched."""
        self._launches += 1
        if self._launches - 1 in self._refused_launches:
            raise EngineError("CUDA failed", "too many resources requested for launch")

    @property
    def is_entered(self) -> bool:
        """True while somebody has the context."""
        return self._entered > 0

    def capture(self, stream: Stream, work: Callable[[], None]) -> Graph | None:
        self._check()
        if not self._records:
            return None
        self._recording = recording = _Recording(stream)
        try:
            work()
        except EngineError:
            return None
        finally:
            self._recording = None
        return None if recording.is_spoilt else FakeGraph(self, recording.issued)

    def allocate_all(self) -> Callable[[], None]:
        """Another process takes what is free; returns what gives it back."""
        taken = self._memory_bytes
        self._memory_bytes = 0

        def give_back() -> None:
            self._memory_bytes = taken

        return give_back

    def free_memory(self) -> tuple[int, int]:
        """Bytes of the device that are free, and all."""
        self.check_thread()
        used = sum(block.values.nbytes for block in self._blocks if block.alive and block.on_device)
        return self._memory_bytes - used, self._memory_bytes

    def free(self, block: FakeBlock) -> None:
        """Give memory back; nothing may be left to do with it."""
        self.check_thread()
        self.refuse_while_recording("a free")
        if self.is_busy(block):
            raise RuleBroken("memory is freed before the device is done with it")
        block.alive = False

    def is_busy(self, block: FakeBlock) -> bool:
        """True where nobody has waited for all that touches some memory."""
        return not self.is_done(dict(block.reads) | ({block.write[0]: block.write[1]} if block.write else {}))

    def is_done(self, clock: Clock) -> bool:
        """True where somebody has waited for it, or the device is lost."""
        return self._lost is not None or all(self._host.get(stream, 0) >= number for stream, number in clock.items())

    def finish(self, clock: Clock) -> None:
        """Do all that a clock knows; whoever gives work then knows that it is done."""
        self._check()
        self.refuse_while_recording("a wait")
        for stream, number in clock.items():
            self._streams[stream].run_to(number)
        self._host = merged(self._host, clock)

    def host_clock(self) -> Clock:
        """What is known to be done by the thread that gives work."""
        return dict(self._host)


@dataclass(slots=True, eq=False)
class _Recording:
    stream: Stream
    issued: list[Callable[[FakeStream], None]] = field(default_factory=list)
    is_spoilt: bool = False


class _FakeMemory:
    def __init__(self, cuda: FakeCuda, block: FakeBlock) -> None:
        self._cuda = cuda
        self._block = block

    @property
    def address(self) -> Address:
        return self._block.address

    @property
    def size(self) -> int:
        return self._block.values.nbytes

    def free(self) -> None:
        if self._block.alive:
            self._cuda.free(self._block)
