"""Whether a build will find the memory that it needs: a Jetson kills what takes too much, with no word."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from vidseg.runtime.engines.tensorrt import libcuda
from vidseg.runtime.engines.tensorrt.device import DeviceFacts
from vidseg.runtime.engines.tensorrt.request import LESS_MEMORY
from vidseg.runtime.errors import EngineError

log = logging.getLogger(__name__)

MEMINFO = Path("/proc/meminfo")

_MIB = 1 << 20
_NEEDED_BYTES, _NEEDED_GRAPHS = 256 * _MIB, 3
"""Least memory of a build, and how often the graph beside it. TensorRT-RTX 1.7 compiling on a CPU: 250 MiB for a graph
of 1 MiB, 830 for 99, 1480 for 207. Trying kernels on a GPU needs more."""

_AMPLE = 4
"""Times the least, above which nothing is said."""


def check_memory(name: str, graph_bytes: int, device: DeviceFacts, meminfo: Path = MEMINFO) -> None:
    """Look at the memory that is free before a build; warn where it may not be enough.

    Args:
        name: of the model, for messages.
        graph_bytes: size of the ONNX graph.
        device: where it is built.
        meminfo: the system's account of its memory.

    Raises:
        EngineError: it cannot be enough.
    """
    needed = _NEEDED_BYTES + _NEEDED_GRAPHS * graph_bytes
    free = {"memory": available_bytes(meminfo)}
    if not device.integrated and libcuda.available() is None:
        free["memory of the GPU"] = _free_on_gpu()
    for kind, found in free.items():
        if found is None or found >= _AMPLE * needed:
            continue
        shown = f"{found // _MIB} MiB of {kind} free"
        if found < needed:
            raise EngineError(f"{name}: too little memory to build a plan: out of memory", shown, LESS_MEMORY)
        log.warning("%s: %s, which may be too little to build a plan. %s", name, shown, LESS_MEMORY)


def available_bytes(meminfo: Path) -> int | None:
    """What Linux can give without and with swapping; None where it does not say (proc_meminfo(5))."""
    try:
        text = meminfo.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = dict(re.findall(r"^(MemAvailable|SwapFree):\s+(\d{1,15}) kB$", text, re.MULTILINE))
    return None if "MemAvailable" not in found else sum(int(kib) for kib in found.values()) << 10


def _free_on_gpu() -> int | None:
    try:
        return libcuda.free_memory()
    except libcuda.CudaError:
        return None  # then the build itself says what is wrong
