"""The NVIDIA driver's own library, by ctypes: what pycuda does not offer, and what is asked before it is loaded.

The only file that opens `libcuda.so.1`. Signatures and numbers are those of `cuda.h`, the same in CUDA 11 to 13.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, byref, c_char, c_char_p, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
from dataclasses import dataclass
from functools import cache
from typing import Any

from vidseg.runtime.errors import EngineError

_PASSING = frozenset({-1, 0, 2, 201, 500, *range(900, 912)})
"""Statuses of a context that works: no driver to ask, success, no memory, no context of this thread, a call that the
driver lacks, and what is not allowed while a stream is recorded. With any other, every call of the process fails too:
illegal addresses and instructions, launches that failed or took too long, a GPU that is gone."""

_NO_DEVICE = 100
_NOT_FOUND = 500
_NO_LIBRARY = -1

_CAPTURE_THREAD_LOCAL = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do meanwhile, allocating memory say, does not spoil it."""

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (POINTER(c_int),),
    "cuGetErrorName": (c_int, POINTER(c_char_p)),
    "cuDeviceGetCount": (POINTER(c_int),),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetName": (POINTER(c_char), c_int, c_int),
    "cuDeviceGetUuid": (POINTER(c_char), c_int),
    "cuDeviceGetUuid_v2": (POINTER(c_char), c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDeviceTotalMem_v2": (POINTER(c_size_t), c_int),
    "cuDevicePrimaryCtxRetain": (POINTER(c_void_p), c_int),
    "cuDevicePrimaryCtxRelease_v2": (c_int,),
    "cuCtxPushCurrent_v2": (c_void_p,),
    "cuCtxPopCurrent_v2": (POINTER(c_void_p),),
    "cuCtxGetCurrent": (POINTER(c_void_p),),
    "cuCtxSynchronize": (),
    "cuMemGetInfo_v2": (POINTER(c_size_t), POINTER(c_size_t)),
    "cuStreamBeginCapture_v2": (c_void_p, c_int),
    "cuStreamEndCapture": (c_void_p, POINTER(c_void_p)),
    "cuGraphInstantiateWithFlags": (POINTER(c_void_p), c_void_p, c_ulonglong),
    "cuGraphLaunch": (c_void_p, c_void_p),
    "cuGraphExecDestroy": (c_void_p,),
    "cuGraphDestroy": (c_void_p,),
}


class CudaError(EngineError):
    """A call to the driver that failed.

    Args:
        status: its CUresult; -1 where there is no driver.
        call: its name.
    """

    def __init__(self, status: int, call: str) -> None:
        super().__init__(f"{call} failed", f"{error_name(status)} ({status})")
        self.status = status


@dataclass(slots=True)
class Capture:
    """What `captured` recorded: a handle once it is over; None before."""

    graph: int | None = None


@cache
def available() -> str | None:
    """Why no GPU can be used here; None where one can. Asked once, and nothing of TensorRT is made before.

    TensorRT 8.6 ends the process where it is used without a driver.
    """
    if _library() is None:
        return "no NVIDIA driver: libcuda.so.1 is not here"
    try:
        _call("cuInit", 0)
        count = c_int()
        _call("cuDeviceGetCount", byref(count))
    except CudaError as error:
        return "the driver finds no GPU" if error.status == _NO_DEVICE else f"the driver does not start: {error}"
    return None if count.value else "the driver finds no GPU"


def error_name(status: int) -> str:
    """Such as `CUDA_ERROR_OUT_OF_MEMORY`."""
    library, name = _library(), c_char_p()
    if library is None:
        return "no driver"
    library.cuGetErrorName.argtypes = _SIGNATURES["cuGetErrorName"]
    library.cuGetErrorName(status, byref(name))
    return name.value.decode() if name.value else "an unknown error"


def driver_version() -> int:
    """The newest CUDA that the driver serves: 12020 for 12.2.

    Raises:
        CudaError: there is no driver.
    """
    version = c_int()
    _call("cuDriverGetVersion", byref(version))
    return version.value


def device_name(index: int = 0) -> str:
    """Such as `Orin`.

    Raises:
        CudaError: there is no such device.
    """
    name = ctypes.create_string_buffer(256)
    _call("cuDeviceGetName", name, len(name), _device(index))
    return name.value.decode(errors="replace")


def device_uuid(index: int = 0) -> str:
    """The device's own number, as `nvidia-smi -L` prints it: `GPU-` and 32 hexadecimal digits in five groups.

    Raises:
        CudaError: there is no such device.
    """
    content = (c_char * 16)()
    try:
        _call("cuDeviceGetUuid_v2", content, _device(index))  # of a slice of a GPU, where it is one
    except CudaError as error:
        if error.status != _NOT_FOUND:
            raise
        _call("cuDeviceGetUuid", content, _device(index))  # drivers before CUDA 11.4
    digits = content.raw.hex()
    return "GPU-" + "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def device_attribute(number: int, index: int = 0) -> int:
    """A property of a device, by its CUdevice_attribute.

    Raises:
        CudaError: there is no such device or property.
    """
    value = c_int()
    _call("cuDeviceGetAttribute", byref(value), number, _device(index))
    return value.value


def device_memory(index: int = 0) -> int:
    """All memory of a device, in bytes; on an integrated one, that which the CPU has too.

    Raises:
        CudaError: there is no such device.
    """
    size = c_size_t()
    _call("cuDeviceTotalMem_v2", byref(size), _device(index))
    return size.value


def free_memory(index: int = 0) -> int:
    """Memory of a device that nobody uses, in bytes. Makes its primary context, and lets go of it.

    Raises:
        CudaError: there is no such device.
    """
    context, free, total = c_void_p(), c_size_t(), c_size_t()
    device = _device(index)
    _call("cuDevicePrimaryCtxRetain", byref(context), device)
    try:
        _call("cuCtxPushCurrent_v2", context)
        try:
            _call("cuMemGetInfo_v2", byref(free), byref(total))
        finally:
            _call("cuCtxPopCurrent_v2", byref(context))
    finally:
        _call("cuDevicePrimaryCtxRelease_v2", device)
    return free.value


def current_context() -> int | None:
    """The context that this thread uses; None for none.

    Raises:
        CudaError: there is no driver.
    """
    context = c_void_p()
    _call("cuCtxGetCurrent", byref(context))
    return context.value


def leave_context() -> None:
    """Take the current context off this thread's stack.

    Raises:
        CudaError: there is none.
    """
    _call("cuCtxPopCurrent_v2", byref(c_void_p()))


def context_status() -> int:
    """How the current context is: 0, or the CUresult of all that was given to it, which this waits for."""
    library = _library()
    return _NO_LIBRARY if library is None else int(library.cuCtxSynchronize())


def is_lost(status: int) -> bool:
    """True for the status of a context after which nothing in this process works on its device any more."""
    return status not in _PASSING


@contextmanager
def captured(stream: int) -> Iterator[Capture]:
    """Record what is given to a stream inside, without doing it. The graph is there once the block is left.

    Args:
        stream: the driver's handle; not the default stream.

    Raises:
        CudaError: something in it cannot be recorded. The stream works again as before.
    """
    found = Capture()
    _call("cuStreamBeginCapture_v2", stream, _CAPTURE_THREAD_LOCAL)
    try:
        yield found
    except BaseException:
        graph = c_void_p()
        _function("cuStreamEndCapture")(stream, byref(graph))  # whatever it says: the capture is over
        _forget(graph.value)
        raise
    graph = c_void_p()
    _call("cuStreamEndCapture", stream, byref(graph))
    found.graph = graph.value


def instantiated(graph: int) -> int:
    """An executable of a recorded graph, which is used up.

    Raises:
        CudaError: the driver cannot make one.
    """
    executable = c_void_p()
    try:
        _call("cuGraphInstantiateWithFlags", byref(executable), graph, 0)
    finally:
        _forget(graph)
    assert executable.value is not None
    return executable.value


def launch(executable: int, stream: int) -> None:
    """Give all of a graph to a stream.

    Raises:
        CudaError: the driver refuses.
    """
    _call("cuGraphLaunch", executable, stream)


def destroy(executable: int) -> None:
    """Let go of an executable.

    Raises:
        CudaError: the driver refuses.
    """
    _call("cuGraphExecDestroy", executable)


def _forget(graph: int | None) -> None:
    if graph is not None:
        _function("cuGraphDestroy")(graph)


@cache
def _library() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None


@cache
def _function(name: str) -> Any:
    library = _library()
    if library is None:
        raise CudaError(_NO_LIBRARY, name)
    try:
        function = getattr(library, name)
    except AttributeError as error:  # a driver older than the call
        raise CudaError(_NOT_FOUND, name) from error
    function.argtypes = _SIGNATURES[name]
    function.restype = c_int
    return function


def _call(name: str, *arguments: Any) -> None:
    status = _function(name)(*arguments)
    if status != 0:
        raise CudaError(status, name)


def _device(index: int) -> int:
    device = c_int()
    _call("cuInit", 0)
    _call("cuDeviceGet", byref(device), index)
    return device.value
