"""Who asks the doctor has trouble already: it must neither fail itself nor leave them without what to do next."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.runtime.test_jetson import AGX_THOR, ORIN_NANO, recorded
from vidseg.runtime.doctor import doctor_text
from vidseg.runtime.errors import ConfigurationError
from vidseg.runtime.finding import Finding, finding_of

pytestmark = pytest.mark.timeout(60)
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler for the stand-in of the driver")

CHILD = """
import json, os, sys
from dataclasses import asdict
from pathlib import Path
from vidseg.runtime.engines.tensorrt import library
library.MODULES = ("tensorrt",)  # not the TensorRT-RTX that may be installed
from vidseg.runtime.nvidia import nvidia_findings
print(json.dumps([asdict(finding) for finding in nvidia_findings(os.environ, Path(sys.argv[1]))]))
"""
TENSORRT = """
__version__ = "{}"
class ILogger:
    def __init__(self): pass
class Runtime:
    def __init__(self, logger): pass
"""
TOO_NEW = TENSORRT.format("11.1.0").replace(
    "logger): pass",
    """logger):
        from enum import Enum
        severity = Enum("Severity", ["ERROR"]).ERROR
        logger.log(severity, "CUDA initialization failure with error: 35. Please check your CUDA installation")
        raise TypeError("factory function returned nullptr")""",
)
PYCUDA = "def get_version(): return (12, 6, 0)\n"
KERNEL_DRIVER = {
    "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build\n"
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Compiles the stand-in of the driver, of another version if one is given, into a folder for the loader."""
    source = Path(__file__).parent / "engines/tensorrt/driver.c"

    def compile_driver(cuda: int | None = None) -> Path:
        folder = tmp_path_factory.mktemp("driver")
        command = [
            "cc",
            "-shared",
            "-fPIC",
            "-Wl,-soname,libcuda.so.1",
            "-o",
            str(folder / "libcuda.so.1"),
            str(source),
        ]
        if cuda is not None:
            (folder / "version.c").write_text(f"int cuDriverGetVersion(int *found) {{ *found = {cuda}; return 0; }}")
            subprocess.run([*command[:3], "-DcuDriverGetVersion=other", "-c", "-o", str(folder / "a.o"), str(source)],
                           check=True, timeout=60)  # fmt: skip
            command[-1:] = [str(folder / "a.o"), str(folder / "version.c")]
        subprocess.run(command, check=True, timeout=60)
        return folder

    return compile_driver


def package(folder: Path, name: str, release: str, files: dict[str, str]) -> None:
    """Install a package into a folder."""
    written = {f"{name}/{file}": text for file, text in ({"__init__.py": ""} | files).items()}
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {release}\n"
    recorded(folder, written | {f"{name}-{release}.dist-info/METADATA": metadata})


def examined(root: Path, packages: Path, driver: Path | None = None) -> dict[str, Finding]:
    """What is found in a process that has these packages and this driver, by subject."""
    environment = os.environ | {"PYTHONPATH": str(packages), "LD_LIBRARY_PATH": str(driver or "")}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(root)], env=environment, capture_output=True, text=True, timeout=50,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    findings = [Finding(**document) for document in json.loads(done.stdout)]
    assert all(each.fix or each.verdict == "ok" or "chmod" in each.text for each in findings)
    return {each.subject: each for each in findings}


def driverless() -> bool:
    code = "from vidseg.runtime.engines.tensorrt.libcuda import available; print(available() or '')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True)
    return bool(done.stdout.strip())


needs_no_gpu = pytest.mark.skipif(not driverless(), reason="this machine has a GPU")


@needs_no_gpu
def test_where_there_is_nothing_of_nvidia_one_line_says_so(tmp_path: Path) -> None:
    (finding,) = examined(tmp_path, tmp_path).values()
    assert (finding.subject, finding.verdict) == ("gpu", "missing")
    assert finding.text == "no NVIDIA driver: libcuda.so.1 is not here"


@needs_compiler
def test_a_jetson_is_told_with_what_makes_it_faster(tmp_path: Path, compiled: Callable[..., Path]) -> None:
    package(tmp_path, "tensorrt", "10.3.0", {"__init__.py": TENSORRT.format("10.3.0")})
    package(tmp_path, "pycuda", "2026.1", {"driver.py": PYCUDA})
    found = examined(recorded(tmp_path / "root", ORIN_NANO | KERNEL_DRIVER), tmp_path, compiled())
    board = "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
    assert list(found) == ["jetson", "gpu", "driver", "tensorrt", "pycuda", "power", "clocks", "dla", "plans"]
    assert found["jetson"].text == f"{board}, JetPack 6.2 (Jetson Linux 36.4.3)"
    assert found["gpu"].text == "Orin, 8.0 GiB shared with the CPU, compute capability 8.7"
    assert found["driver"].text == "540.4.0, CUDA up to 12.6"
    assert found["tensorrt"].text == "TensorRT 10.3.0 (module tensorrt)"
    assert found["pycuda"].text == "pycuda 2026.1, built with CUDA 12.6"
    assert (found["power"].verdict, found["power"].text) == ("slow", "power mode 25W")
    assert found["power"].fix.startswith("sudo nvpmodel -m 2 sets MAXN_SUPER")
    assert found["clocks"].verdict == "slow"
    assert "306 to 918 MHz" in found["clocks"].text
    assert "jetson_clocks" in found["clocks"].fix
    assert found["dla"].text == "none: the GPU computes everything"
    assert [each.subject for each in found.values() if each.verdict != "ok"] == ["power", "clocks"]


@needs_no_gpu
def test_a_jetson_that_cannot_reach_its_gpu_has_to_be_mended(tmp_path: Path) -> None:
    found = examined(recorded(tmp_path / "root", AGX_THOR), tmp_path)
    assert found["jetson"].text == "NVIDIA Jetson AGX Thor Developer Kit, Jetson Linux 38.2.2"
    assert found["gpu"].verdict == "broken"
    assert "--runtime nvidia" in found["gpu"].fix
    assert "python3-libnvinfer" in found["tensorrt"].fix
    assert found["pycuda"].fix == "PATH=/usr/local/cuda/bin:$PATH pip install pycuda"
    assert found["clocks"].text == "GPU held at 1575 MHz"
    assert "driver" not in found


@needs_compiler
@pytest.mark.skipif(version("numpy").startswith("1."), reason="NumPy 1 is here")
def test_numpy_2_beside_tensorrt_8_and_an_old_driver_are_named(tmp_path: Path, compiled: Callable[..., Path]) -> None:
    package(tmp_path, "tensorrt", "8.6.1", {"__init__.py": TENSORRT.format("8.6.1")})
    found = examined(tmp_path / "root", tmp_path, compiled(11040))
    assert (found["tensorrt"].verdict, found["tensorrt"].fix) == (
        "broken",
        'pip install "numpy<2" "opencv-python<4.12"',
    )
    assert f"NumPy {version('numpy')}" in found["tensorrt"].text
    assert (found["driver"].verdict, found["driver"].text) == ("broken", "of unknown release, CUDA up to 11.4")
    assert "520" in found["driver"].fix


@needs_compiler
def test_a_tensorrt_that_is_too_new_for_the_driver_is_found(tmp_path: Path, compiled: Callable[..., Path]) -> None:
    package(tmp_path, "tensorrt", "11.1.0", {"__init__.py": TOO_NEW})
    found = examined(tmp_path / "root", tmp_path, compiled())["tensorrt"]
    assert found.verdict == "broken"
    assert "does not start: CUDA initialization failure with error: 35" in found.text
    assert "tensorrt-cu12" in found.fix


@needs_compiler
@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("import os; os.kill(os.getpid(), 11)", r"ends the process: got signal 11 (Segmentation fault)."),
        ("raise ImportError('libnvinfer.so.10: cannot open')", "tensorrt cannot be loaded: got libnvinfer.so.10"),
        ("import sys; sys.exit(0)", "the import says something else"),
        ("1 / 0", "division by zero"),
    ],
)
def test_a_library_that_cannot_be_imported_is_a_finding(
    tmp_path: Path, compiled: Callable[..., Path], code: str, text: str
) -> None:
    package(tmp_path, "tensorrt", "10.3.0", {"__init__.py": code})
    package(tmp_path, "pycuda", "2026.1", {"driver.py": "raise ImportError('undefined symbol: cuCtxCreate_v4')"})
    found = examined(tmp_path / "root", tmp_path, compiled())
    assert found["tensorrt"].verdict == found["pycuda"].verdict == "broken"
    assert text in found["tensorrt"].text
    assert "undefined symbol: cuCtxCreate_v4" in found["pycuda"].text
    assert "Build it again" in found["pycuda"].fix


@needs_compiler
def test_the_kept_plans_are_counted_and_their_folder_is_judged(tmp_path: Path, compiled: Callable[..., Path]) -> None:
    driver = compiled()
    plans = Path(os.environ["XDG_CACHE_HOME"]) / "vidseg/plans"
    shutil.rmtree(plans, ignore_errors=True)
    assert examined(tmp_path, tmp_path, driver)["plans"].text == f"none yet in {plans}"
    plans.mkdir(parents=True, mode=0o700)
    (plans / "a.plan").write_bytes(bytes(3 << 20))
    (plans / "a.json").write_bytes(b"{}")
    assert examined(tmp_path, tmp_path, driver)["plans"].text == f"1 kept, 3.0 of at most 4096 MiB, in {plans}"
    plans.chmod(0o777)
    open_to_all = examined(tmp_path, tmp_path, driver)["plans"]
    shutil.rmtree(plans)
    assert open_to_all.verdict == "broken"
    assert f"chmod 700 {plans}" in open_to_all.text


def test_the_report_has_a_line_for_each_finding_and_one_for_its_fix() -> None:
    findings = [Finding("gpu", "ok", "Orin"), Finding("clocks", "slow", "306 to 918 MHz", "sudo jetson_clocks")]
    assert doctor_text(findings) == (
        "ok       gpu          Orin\n"
        "slow     clocks       306 to 918 MHz\n"
        "                      -> sudo jetson_clocks"
    )  # fmt: skip


def test_an_error_is_a_finding() -> None:
    def check() -> str:
        raise ConfigurationError("a folder is not safe", "", "chmod 700 it.")

    assert finding_of("cache", check) == Finding("cache", "broken", "a folder is not safe. chmod 700 it.")
    assert finding_of("cache", lambda: "/a") == Finding("cache", "ok", "/a")
