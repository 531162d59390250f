"""The GPU at hand, as far as plans depend on it: asked of the driver alone."""

from __future__ import annotations

from dataclasses import dataclass

from vidseg.runtime.engines.tensorrt import libcuda
from vidseg.runtime.errors import DeviceError
from vidseg.runtime.jetson import power_mode

_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR, _INTEGRATED = 75, 76, 18
"""Of CUdevice_attribute in `cuda.h`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """A GPU, and the state of the machine that its plans are timed in.

    Attributes:
        name: such as `Orin` or `NVIDIA GeForce RTX 4090`.
        uuid: its own number, `GPU-..`.
        compute_capability: such as (8, 7).
        driver: the newest CUDA that the driver serves: 12020 for 12.2.
        memory_bytes: all of its memory.
        integrated: True where it shares its memory with the CPU.
        power_mode: a Jetson's, such as `MAXN`; "" elsewhere.
    """

    name: str
    uuid: str
    compute_capability: tuple[int, int]
    driver: int
    memory_bytes: int
    integrated: bool
    power_mode: str = ""


def device_facts(index: int = 0) -> DeviceFacts:
    """Look at a GPU.

    Raises:
        DeviceError: there is none, or its driver does not work.
    """
    reason = libcuda.available()
    if reason is not None:
        raise DeviceError("there is no GPU for TensorRT", reason, "Try `vidseg doctor`.")
    try:
        return DeviceFacts(
            name=libcuda.device_name(index),
            uuid=libcuda.device_uuid(index),
            compute_capability=(
                libcuda.device_attribute(_COMPUTE_CAPABILITY_MAJOR, index),
                libcuda.device_attribute(_COMPUTE_CAPABILITY_MINOR, index),
            ),
            driver=libcuda.driver_version(),
            memory_bytes=libcuda.device_memory(index),
            integrated=bool(libcuda.device_attribute(_INTEGRATED, index)),
            power_mode=power_mode(),
        )
    except libcuda.CudaError as error:
        raise DeviceError(f"GPU {index} cannot be used", str(error), "Try `vidseg doctor`.") from error
