"""What the engine needs of CUDA, so that it can be tested on a machine without one.

One thread enters the context, makes everything in it, uses it, frees it and leaves it: the driver keeps a stack of
contexts for each thread. What is called asynchronous is done in the order of its stream.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, TypeAlias

from numpy.typing import DTypeLike, NDArray

from vidseg.runtime.errors import DeviceError

Address: TypeAlias = int
"""On the device."""

Grid: TypeAlias = tuple[int, int, int]
"""Columns, rows, layers: of a grid in blocks, of a block in threads."""


class OutOfMemoryError(DeviceError):
    """The device has too little free memory; what is there works on."""


class Memory(Protocol):
    """Memory of the device."""

    @property
    def address(self) -> Address:
        """Where it starts."""

    @property
    def size(self) -> int:
        """In bytes."""

    def free(self) -> None:
        """Give it back. Idempotent."""


class Event(Protocol):
    """A mark in a stream."""

    def record(self, stream: Stream) -> None:
        """Set the mark behind all that the stream has been given."""

    def synchronize(self) -> None:
        """Block until the device has come to the mark.

        Raises:
            EngineError, DeviceError: what was computed before it failed.
        """

    def elapsed_ms(self, since: Event) -> float:
        """Time of the device between two marks that it has passed."""


class Stream(Protocol):
    """A queue of work for the device."""

    @property
    def handle(self) -> int:
        """The driver's own, as libraries take it."""

    def wait(self, event: Event) -> None:
        """What is given to the stream from now on starts when the device has come to a mark of another one."""

    def synchronize(self) -> None:
        """Block until all is done.

        Raises:
            EngineError, DeviceError: some of it failed.
        """


class Kernel(Protocol):
    """A function of the device."""

    def launch(self, stream: Stream, grid: Grid, block: Grid, *arguments: int | float) -> None:
        """Run it over a grid of blocks of threads; addresses and numbers as its signature says."""


class Graph(Protocol):
    """Work that was recorded, to be given to the device in one call."""

    def launch(self, stream: Stream) -> None:
        """Do all of it, in the order of the stream."""

    def free(self) -> None:
        """Forget it. Idempotent."""


class Cuda(Protocol):
    """A device's primary context, the one that TensorRT uses too. A context manager.

    Raises:
        OutOfMemoryError: the device has too little free memory.
        DeviceError: it has failed for good: nothing works in this process any more.
        EngineError: a call failed.
    """

    @property
    def integrated(self) -> bool:
        """True where device and CPU share their memory: what is pinned has an address for both."""

    def allocate(self, size: int) -> Memory:
        """Memory of the device, `size` bytes, not cleared."""

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array that copies need not stage, C-contiguous, not cleared; it has to die before the context is left."""

    def address_of(self, pinned: NDArray[Any]) -> Address:
        """The device's address of a pinned array, where the device is integrated."""

    def upload(self, memory: Address, values: NDArray[Any], stream: Stream) -> None:
        """Copy a pinned, C-contiguous array to the device, asynchronously: it must not change before that is done."""

    def download(self, values: NDArray[Any], memory: Address, stream: Stream) -> None:
        """Fill a pinned, C-contiguous array from the device, asynchronously."""

    def stream(self) -> Stream:
        """A new stream that does not wait for the default one."""

    def event(self, *, timing: bool = False) -> Event:
        """A new mark; with `timing` it knows when it was passed."""

    def kernel(self, ptx: bytes, name: str, signature: str) -> Kernel:
        """A function of PTX code.

        Args:
            ptx: NVIDIA's portable assembly; the driver compiles it for its device.
            name: of the function.
            signature: of its arguments, in the codes of `struct`, with P for an address: "PPiif".
        """

    def capture(self, stream: Stream, work: Callable[[], None]) -> Graph | None:
        """Record what a callable gives to a stream, without doing it.

        Addresses and shapes are part of the recording. None where something in it cannot be recorded.
        """

    def __enter__(self) -> Cuda: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
