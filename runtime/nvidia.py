"""What of NVIDIA's this machine has, for the doctor: GPU, driver, TensorRT, pycuda, and a Jetson's own switches.

Libraries are imported in a child process: what they load can end a process in which it does not work.
"""

from __future__ import annotations

import importlib.util
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vidseg.runtime import jetson
from vidseg.runtime.cache import plans_folder, private_folder
from vidseg.runtime.engines.tensorrt import libcuda, library
from vidseg.runtime.engines.tensorrt.device import cuda_text, device_facts, driver_release
from vidseg.runtime.engines.tensorrt.plan_cache import LIMIT_BYTES
from vidseg.runtime.errors import ConfigurationError, DeviceError, EngineError
from vidseg.runtime.finding import Finding, finding_of

MIN_CUDA = 11080
"""Older drivers do not read the PTX that is shipped, which is of CUDA 11.8's version, 7.8."""

IMPORT_TIMEOUT_S = 60
"""A Jetson takes seconds for TensorRT's first import."""

_INSTALL = 'pip install "vidseg[tensorrt]"'

_TENSORRT = """
import json
from vidseg.runtime.engines.tensorrt import libcuda
from vidseg.runtime.engines.tensorrt.execution import runtime_of
from vidseg.runtime.engines.tensorrt.library import find_library
found, failure = find_library(), ""
if libcuda.available() is None:
    try:
        runtime_of(found)
    except Exception as error:
        failure = found.last_error() or str(error)
print(json.dumps({"name": found.name, "version": found.version, "failure": failure}))
"""
"""Its runtime is the first that fails where the driver is older than the release; without a GPU it may crash."""

_PYCUDA = """
import json
from pycuda import driver
print(json.dumps({"cuda": ".".join(map(str, driver.get_version()[:2]))}))
"""


def nvidia_findings(environment: Mapping[str, str], root: Path = jetson.ROOT) -> list[Finding]:
    """Look at everything; one line where there is no GPU and nothing for one is installed.

    Args:
        environment: for the place of the cache folder, as `os.environ`.
        root: of the file system.
    """
    board = jetson.board_model(root)
    reason = libcuda.available()
    has_pycuda = importlib.util.find_spec("pycuda") is not None
    if reason and not board and not library.installed() and not has_pycuda:
        return [Finding("gpu", "missing", reason, "Nothing is needed: models run on the CPU.")]
    checks: dict[str, Callable[[], Finding | str]] = {
        "gpu": lambda: _no_gpu(reason, board, root) if reason else _gpu(),
        "tensorrt": lambda: _tensorrt(board),
        "pycuda": lambda: _pycuda(board, reason),
    }
    if not reason:
        checks["driver"] = lambda: _driver(root)
    if board:
        checks["jetson"] = lambda: f"{board}, {_jetpack(root)}"
        checks["power"] = lambda: _power(root)
        checks["clocks"] = lambda: _clocks(root)
        checks["dla"] = lambda: _dla(root)
    checks["plans"] = lambda: _plans(environment)
    order = ("jetson", "gpu", "driver", "tensorrt", "pycuda", "power", "clocks", "dla", "plans")
    return [finding_of(subject, checks[subject]) for subject in order if subject in checks]


def _jetpack(root: Path) -> str:
    release = jetson.l4t_release(root) or "of unknown release"
    jetpack = jetson.jetpack_version(root)
    return f"JetPack {jetpack} (Jetson Linux {release})" if jetpack else f"Jetson Linux {release}"


def _gpu() -> str | Finding:
    try:
        facts = device_facts()
    except DeviceError as error:
        text = str(error).removesuffix(" Try `vidseg doctor`.")
        return Finding("gpu", "broken", text, "Start the machine again, or reinstall NVIDIA's driver.")
    shared = " shared with the CPU" if facts.integrated else ""
    capability = ".".join(map(str, facts.compute_capability))
    return f"{facts.name}, {facts.memory_bytes / 2**30:.1f} GiB{shared}, compute capability {capability}"


def _no_gpu(reason: str, board: str, root: Path) -> Finding:
    """It should be there on a Jetson, and where the kernel has its driver and TensorRT is installed."""
    is_loaded = bool(driver_release(root))
    verdict = "broken" if board or (is_loaded and library.installed()) else "missing"
    if board:
        fix = "Join the groups video and render; start containers with --runtime nvidia."
    elif is_loaded:
        fix = "Start containers with --gpus all; after an update of the driver, start the machine again."
    else:
        fix = "Install NVIDIA's driver where there is a GPU; else models run on the CPU."
    return Finding("gpu", verdict, reason, fix)  # type: ignore[arg-type]


def _driver(root: Path) -> Finding:
    newest = libcuda.driver_version()
    text = f"{driver_release(root) or 'of unknown release'}, CUDA up to {cuda_text(newest)}"
    if newest < MIN_CUDA:
        return Finding("driver", "broken", text, "Install NVIDIA's driver 520 or later.")
    return Finding("driver", "ok", text)


def _tensorrt(board: str) -> Finding:
    if not library.installed():
        fix = "sudo apt install python3-libnvinfer, and a venv with --system-site-packages" if board else _INSTALL
        return Finding("tensorrt", "missing", "no TensorRT", fix)
    try:
        found = _in_child(_TENSORRT)
    except EngineError as error:
        text, advised, advice = str(error).partition(" Install it")
        again = "sudo apt install --reinstall python3-libnvinfer" if board else f"{_INSTALL} --force-reinstall"
        return Finding("tensorrt", "broken", text, f"Install it{advice}" if advised else again)
    text = f"TensorRT{'-RTX' if 'rtx' in found['name'] else ''} {found['version']} (module {found['name']})"
    numpy = version("numpy")
    if found["version"].startswith("8.") and not numpy.startswith("1."):
        text += f" beside NumPy {numpy}: it returns wrong arrays"
        return Finding("tensorrt", "broken", text, 'pip install "numpy<2" "opencv-python<4.12"')
    if found["failure"]:
        is_driver = "CUDA" in found["failure"]
        fix = (
            "sudo apt install --reinstall nvidia-jetpack" if board
            else "Update NVIDIA's driver, or install a tensorrt for its CUDA, such as tensorrt-cu12." if is_driver
            else f"{_INSTALL} --force-reinstall"
        )  # fmt: skip
        return Finding("tensorrt", "broken", f"{text} does not start: {found['failure']}", fix)
    return Finding("tensorrt", "ok", text)


def _pycuda(board: str, no_gpu: str | None) -> Finding:
    if importlib.util.find_spec("pycuda") is None:
        build = "PATH=/usr/local/cuda/bin:$PATH pip install pycuda"
        return Finding("pycuda", "missing", "no pycuda", build if board else _INSTALL)
    text = f"pycuda {version('pycuda')}"
    if no_gpu:
        return Finding("pycuda", "ok", f"{text}, not tried without a GPU")
    try:
        return Finding("pycuda", "ok", f"{text}, built with CUDA {_in_child(_PYCUDA)['cuda']}")
    except EngineError as error:
        again = "Build it again with this machine's CUDA: pip install --force-reinstall --no-cache-dir pycuda"
        return Finding("pycuda", "broken", f"{text}: {error}", again)


def _power(root: Path) -> Finding:
    mode = jetson.power_mode(root)
    fastest = sorted((each for each in jetson.power_modes(root) if each.name.startswith("MAXN")), key=_name_length)
    if not mode:
        return Finding("power", "missing", "no power mode is told here", "Look at it with: sudo nvpmodel -q")
    if fastest and not mode.startswith("MAXN"):
        fix = f"sudo nvpmodel -m {fastest[-1].number} sets {fastest[-1].name}, if supply and cooling stand it."
        return Finding("power", "slow", f"power mode {mode}", fix)
    return Finding("power", "ok", f"power mode {mode}")


def _name_length(mode: jetson.PowerMode) -> int:
    """MAXN_SUPER comes behind MAXN."""
    return len(mode.name)


def _clocks(root: Path) -> Finding:
    clock = jetson.gpu_clock(root)
    if clock is None:
        return Finding("clocks", "missing", "the GPU's clock is not told here", "sudo jetson_clocks --show")
    if clock.is_held:
        return Finding("clocks", "ok", f"GPU held at {clock.max_mhz:.0f} MHz")
    text = f"GPU at {clock.min_mhz:.0f} to {clock.max_mhz:.0f} MHz as load demands: it falls between frames"
    return Finding("clocks", "slow", text, "sudo jetson_clocks, after every start")


def _dla(root: Path) -> str:
    count = jetson.dla_cores(root)
    return f"{count} of them" if count else "none: the GPU computes everything"


def _plans(environment: Mapping[str, str]) -> str | Finding:
    folder = plans_folder(environment)
    if not folder.exists():
        return f"none yet in {folder}"
    try:
        private_folder(folder)
    except ConfigurationError as error:
        return Finding("plans", "broken", str(error), f"Remove {folder}: it is made again.")
    files = [path for path in folder.iterdir() if path.is_file()]
    plans = sum(path.suffix == ".plan" for path in files)
    size_mib, limit_mib = (size / 2**20 for size in (sum(path.stat().st_size for path in files), LIMIT_BYTES))
    return f"{plans} kept, {size_mib:.1f} of at most {limit_mib:.0f} MiB, in {folder}"


def _in_child(code: str) -> dict[str, Any]:
    """What our own code prints as JSON in a process of its own.

    Raises:
        EngineError: it failed there; with its last line.
    """
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and text
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=IMPORT_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError("the import does not end", f"nothing in {IMPORT_TIMEOUT_S} s") from error
    if done.returncode < 0:
        number = -done.returncode
        raise EngineError("the import ends the process", f"signal {number} ({signal.strsignal(number)})")
    lines = (done.stderr if done.returncode else done.stdout).strip().splitlines() or ["no word"]
    if done.returncode:
        ours, is_ours = re.subn(r"^vidseg[\w.]+: ", "", lines[-1])
        raise EngineError(ours.rstrip(".")) if is_ours else EngineError("the import fails", lines[-1][:300])
    try:
        document: dict[str, Any] = json.loads(lines[-1])
    except ValueError as error:
        raise EngineError("the import says something else", lines[-1][:300]) from error
    return document
