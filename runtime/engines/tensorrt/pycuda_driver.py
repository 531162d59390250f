"""CUDA through pycuda: the only file that imports it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from vidseg.runtime.engines.tensorrt import libcuda
from vidseg.runtime.engines.tensorrt.cuda import Address, Event, Graph, Grid, Memory, OutOfMemoryError, Stream
from vidseg.runtime.errors import DeviceError, EngineError

log = logging.getLogger(__name__)

_NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING: the stream does not wait for the default one."""


class PycudaDriver:
    """A device's primary context; see `Cuda`.

    It is entered, used and left by one thread: pycuda ties what it frees to the thread that retained the context, and
    ends the process where a context is still entered when its thread ends. All drivers of a thread share one for each
    device, in any order: the first enters it, the last leaves it.

    Args:
        index: of the device.

    Raises:
        DeviceError: there is no such device, or its driver does not work.
        EngineError: pycuda is missing.
    """

    def __init__(self, index: int = 0) -> None:
        reason = libcuda.available()
        if reason:
            raise DeviceError("there is no GPU for TensorRT", reason, "Try `vidseg doctor`.")
        try:
            from pycuda import driver
        except ImportError as error:
            raise EngineError(
                "the engine `tensorrt` needs pycuda", str(error), 'Install it: pip install "vidseg[tensorrt]".'
            ) from error
        self._driver = driver
        self._index = index
        self._is_entered = False
        self._translated = _Translator(driver)
        self._modules: dict[bytes, Any] = {}

    @property
    def integrated(self) -> bool:
        """See `Cuda`."""
        attribute = self._driver.device_attribute.INTEGRATED
        return bool(self._driver.Device(self._index).get_attribute(attribute))

    def allocate(self, size: int) -> Memory:
        """See `Cuda`."""
        with self._translated():
            return _Memory(
                self._translated, self._driver.mem_alloc(max(size, 1)), size
            )  # 0 bytes are an error of the driver

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """See `Cuda`."""
        flags = self._driver.host_alloc_flags.DEVICEMAP if self.integrated else 0
        with self._translated():
            array: NDArray[Any] = self._driver.pagelocked_empty(shape, np.dtype(dtype), mem_flags=flags)
            return array

    def address_of(self, pinned: NDArray[Any]) -> Address:
        """See `Cuda`."""
        whole: Any = pinned
        while isinstance(whole.base, np.ndarray):  # a slice, or reshaped
            whole = whole.base
        with self._translated():
            return int(whole.base.get_device_pointer() + pinned.ctypes.data - whole.ctypes.data)

    def upload(self, memory: Address, values: NDArray[Any], stream: Stream) -> None:
        """See `Cuda`."""
        with self._translated():
            self._driver.memcpy_htod_async(memory, values, _native(stream))

    def download(self, values: NDArray[Any], memory: Address, stream: Stream) -> None:
        """See `Cuda`."""
        with self._translated():
            self._driver.memcpy_dtoh_async(values, memory, _native(stream))

    def stream(self) -> Stream:
        """See `Cuda`."""
        with self._translated():
            return _Stream(self._translated, self._driver.Stream(_NON_BLOCKING))

    def event(self, *, timing: bool = False) -> Event:
        """See `Cuda`."""
        flags = self._driver.event_flags
        with self._translated():
            return _Event(self._translated, self._driver.Event(flags.DEFAULT if timing else flags.DISABLE_TIMING))

    def kernel(self, ptx: bytes, name: str, signature: str) -> _Kernel:
        """See `Cuda`."""
        with self._translated():
            if ptx not in self._modules:
                self._modules[ptx] = self._driver.module_from_buffer(ptx + b"\0")  # the driver reads to the NUL
            function = self._modules[ptx].get_function(name)
            function.prepare(signature)
            return _Kernel(self._translated, function)

    def capture(self, stream: Stream, work: Callable[[], None]) -> Graph | None:
        """See `Cuda`."""
        try:
            with libcuda.captured(stream.handle) as found:
                work()
            return None if found.graph is None else _Graph(self._translated, libcuda.instantiated(found.graph))
        except EngineError as error:
            log.info("not recorded: %s", error)
            return None

    def __enter__(self) -> PycudaDriver:
        entered = _entered()
        if self._index not in entered:
            with self._translated():
                self._driver.init()
                before = libcuda.current_context()
                context = self._driver.Device(self._index).retain_primary_context()
                context.push()
            entered[self._index] = _Entered(context, before)
        entered[self._index].drivers += 1
        self._is_entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_entered:
            return
        self._is_entered = False
        self._modules.clear()
        entered = _entered()
        entered[self._index].drivers -= 1
        if entered[self._index].drivers:
            return
        left = entered.pop(self._index)
        self._driver.Context.pop()
        left.context.detach()
        if libcuda.current_context() != left.before:  # detach() enters it to let go of it, and stays (pycuda 2026.1)
            libcuda.leave_context()


@dataclass(slots=True)
class _Entered:
    """A context that a thread has entered, the one it had before, and how many drivers use it."""

    context: Any
    before: int | None
    drivers: int = 0


_THREAD = threading.local()


def _entered() -> dict[int, _Entered]:
    """The contexts that this thread has entered, by device."""
    contexts: dict[int, _Entered] = _THREAD.__dict__.setdefault("contexts", {})
    return contexts


@dataclass(frozen=True, slots=True)
class _Translator:
    """Errors of pycuda as ours. It tells them apart by text; whether the device is lost, the driver says."""

    driver: Any

    def _free(self) -> str:
        try:
            free, total = (size >> 20 for size in self.driver.mem_get_info())
        except self.driver.Error:  # no context yet: it was the one that found no room
            return ""
        return f"; {free} of {total} MiB are free"

    @contextmanager
    def __call__(self) -> Iterator[None]:
        try:
            yield
        except self.driver.MemoryError as error:
            raise OutOfMemoryError(
                "the GPU's memory is used up",
                f"{error}{self._free()}",
                "End other programs that use the GPU, or take a smaller batch.",
            ) from error
        except (self.driver.Error, libcuda.CudaError) as error:
            status = libcuda.context_status()
            if libcuda.is_lost(status):
                raise DeviceError(
                    "the GPU has failed, and with it everything that this process has there",
                    f"{error} (CUDA error {status})",
                    "Start again.",
                ) from error
            raise EngineError("CUDA failed", str(error)) from error


def _native(stream: Stream) -> Any:
    assert isinstance(stream, _Stream)
    return stream.native


class _Memory:
    def __init__(self, translated: _Translator, allocation: Any, size: int) -> None:
        self._translated = translated
        self._allocation = allocation
        self._address = int(allocation)
        self._size = size

    @property
    def address(self) -> Address:
        return self._address

    @property
    def size(self) -> int:
        return self._size

    def free(self) -> None:
        allocation, self._allocation = self._allocation, None
        if allocation is not None:
            with self._translated():
                allocation.free()


class _Stream:
    def __init__(self, translated: _Translator, native: Any) -> None:
        self._translated = translated
        self.native = native

    @property
    def handle(self) -> int:
        return int(self.native.handle)

    def wait(self, event: Event) -> None:
        assert isinstance(event, _Event)
        with self._translated():
            self.native.wait_for_event(event.native)

    def synchronize(self) -> None:
        with self._translated():
            self.native.synchronize()


class _Event:
    def __init__(self, translated: _Translator, native: Any) -> None:
        self._translated = translated
        self.native = native

    def record(self, stream: Stream) -> None:
        with self._translated():
            self.native.record(_native(stream))

    def synchronize(self) -> None:
        with self._translated():
            self.native.synchronize()

    def elapsed_ms(self, since: Event) -> float:
        assert isinstance(since, _Event)
        with self._translated():
            return float(self.native.time_since(since.native))


class _Kernel:
    def __init__(self, translated: _Translator, function: Any) -> None:
        self._translated = translated
        self._function = function

    def launch(self, stream: Stream, grid: Grid, block: Grid, *arguments: int | float) -> None:
        with self._translated():
            self._function.prepared_async_call(grid, block, _native(stream), *arguments)


class _Graph:
    def __init__(self, translated: _Translator, executable: Any) -> None:
        self._translated = translated
        self._executable = executable

    def launch(self, stream: Stream) -> None:
        with self._translated():
            libcuda.launch(self._executable, stream.handle)

    def free(self) -> None:
        executable, self._executable = self._executable, None
        if executable is not None:
            with self._translated():
                libcuda.destroy(executable)
