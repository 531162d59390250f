"""The GPU at hand, as far as plans depend on it: asked of the driver alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from vidseg.runtime.engines.tensorrt import libcuda
from vidseg.runtime.errors import DeviceError
from vidseg.runtime.jetson import ROOT, l4t_release, power_mode

_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR, _INTEGRATED = 75, 76, 18
"""Of CUdevice_attribute in `cuda.h`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """A GPU, and the state of the machine that its plans are timed in.

    Attributes:
        name: such as `Orin` or `NVIDIA GeForce RTX 4090`.
        uuid: its own number, `GPU-..`.
        compute_capability: such as (8, 7).
        driver: its release, and the newest CUDA that it serves, such as `580.95.05, CUDA 13.0`.
        memory_bytes: all of its memory.
        integrated: True where it shares its memory with the CPU.
        power_mode: a Jetson's, such as `MAXN`; "" elsewhere.
    """

    name: str
    uuid: str
    compute_capability: tuple[int, int]
    driver: str
    memory_bytes: int
    integrated: bool
    power_mode: str = ""


def driver_release(root: Path = ROOT) -> str:
    """Release of the driver that the kernel has loaded, such as `580.95.05`; "" where there is none."""
    try:
        text = (root / "proc/driver/nvidia/version").read_text(errors="replace")[:1000]
    except OSError:
        return ""
    found = re.search(r"\b[0-9]{3}(\.[0-9]{1,4}){1,2}\b", text)
    return found[0] if found else ""


def cuda_text(version: int) -> str:
    """A version of CUDA as the driver numbers it, as people do: 12020 is 12.2."""
    return f"{version // 1000}.{version % 1000 // 10}"


def device_facts(index: int = 0, root: Path = ROOT) -> DeviceFacts:
    """Look at a GPU.

    Args:
        index: which one.
        root: of the file system, for what is not asked of the driver itself.

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
            driver=_driver(root),
            memory_bytes=libcuda.device_memory(index),
            integrated=bool(libcuda.device_attribute(_INTEGRATED, index)),
            power_mode=power_mode(root),
        )
    except libcuda.CudaError as error:
        raise DeviceError(f"GPU {index} cannot be used", str(error), "Try `vidseg doctor`.") from error


def _driver(root: Path) -> str:
    """A Jetson's comes with its system."""
    release = driver_release(root) or l4t_release(root) or "of unknown release"
    return f"{release}, CUDA {cuda_text(libcuda.driver_version())}"
