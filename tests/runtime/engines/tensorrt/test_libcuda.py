"""A wrong call to the driver corrupts memory or ends the process; here each goes to a C library that checks it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vidseg.runtime.engines.tensorrt import libcuda

SOURCE = Path(__file__).with_name("driver.c")
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler for the stand-in of the driver")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("driver"))


def compiled(folder: Path, *options: str) -> Path:
    """The folder, with the driver in it."""
    command = ["cc", "-shared", "-fPIC", *options, "-Wl,-soname,libcuda.so.1", "-o", str(folder / "libcuda.so.1")]
    subprocess.run([*command, str(SOURCE)], check=True, timeout=60)
    return folder


def printed(driver: Path | None, code: str, **environment: str) -> Any:
    """What a new process prints as JSON. The dynamic loader looks for the driver only when one starts."""
    path = {"LD_LIBRARY_PATH": str(driver)} if driver else {}
    done = subprocess.run(
        [sys.executable, "-c", f"import ctypes, json\nfrom vidseg.runtime.engines.tensorrt import libcuda\n{code}"],
        env=os.environ | path | environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_without_a_driver_the_reason_is_told_and_nothing_crashes() -> None:
    code = """
said = [libcuda.available(), libcuda.context_status()]
try:
    libcuda.driver_version()
except libcuda.CudaError as error:
    said += [error.status, str(error)]
print(json.dumps(said))
"""
    if printed(None, "print(json.dumps(libcuda.available()))") is None:
        pytest.skip("this machine has a GPU")
    reason, *_ = printed(None, code)
    assert "driver" in reason


@needs_compiler
@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({}, None),
        ({"FAKE_STATUS": "100"}, "the driver finds no GPU"),
        ({"FAKE_DEVICES": "0"}, "the driver finds no GPU"),
        (
            {"FAKE_STATUS": "803"},
            "the driver does not start: cuInit failed: got CUDA_ERROR_SYSTEM_DRIVER_MISMATCH (803).",
        ),
    ],
)
def test_available_tells_why_no_gpu_can_be_used(driver: Path, environment: dict[str, str], reason: str | None) -> None:
    assert printed(driver, "print(json.dumps(libcuda.available()))", **environment) == reason


@pytest.mark.parametrize(
    ("status", "lost"),
    [(0, False), (2, False), (201, False), (500, False), (900, False), (901, False), (-1, False)]
    + [(status, True) for status in (4, 214, 220, 226, 700, 702, 709, 719, 721, 999)],
)
def test_a_device_is_lost_with_every_status_but_those_that_pass(status: int, lost: bool) -> None:
    assert libcuda.is_lost(status) is lost


@needs_compiler
def test_the_device_is_described_as_the_driver_has_it(driver: Path, tmp_path: Path) -> None:
    code = f"""
from dataclasses import asdict
from pathlib import Path
from vidseg.runtime.engines.tensorrt.device import device_facts
facts = device_facts(root=Path({str(tmp_path)!r}))
print(json.dumps([asdict(facts), libcuda.free_memory(), ctypes.CDLL("libcuda.so.1").left_over()]))
"""
    release = tmp_path / "proc/driver/nvidia/version"
    release.parent.mkdir(parents=True)
    release.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  560.35.03  Fri Aug 16 21:39:15 UTC 2024\n")
    facts, free, left_over = printed(driver, code)
    assert facts == {
        "name": "Orin", "uuid": "GPU-00112233-4455-6677-8899-aabbccddeeff", "compute_capability": [8, 7],
        "driver": "560.35.03, CUDA 12.6", "memory_bytes": 8 << 30, "integrated": True, "power_mode": "",
    }  # fmt: skip
    assert (free, left_over) == (5 << 30, 0)


@needs_compiler
@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        (
            "proc/driver/nvidia/version",
            "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  R",
            "540.4.0",
        ),
        ("etc/nv_tegra_release", "# R36 (release), REVISION: 4.3, GCID: 38968081", "36.4.3"),
        ("proc/driver/nvidia/version", "something else", "of unknown release"),
    ],
)
def test_a_driver_is_known_by_its_own_release_that_of_cuda_changes_too_seldom(
    driver: Path, tmp_path: Path, file: str, text: str, expected: str
) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(text)
    code = f"""
from pathlib import Path
from vidseg.runtime.engines.tensorrt.device import device_facts
print(json.dumps(device_facts(root=Path({str(tmp_path)!r})).driver))
"""
    assert printed(driver, code) == f"{expected}, CUDA 12.6"


@needs_compiler
def test_a_gpu_that_is_not_there_is_a_device_error(driver: Path) -> None:
    code = """
from vidseg.runtime.engines.tensorrt.device import device_facts
from vidseg.runtime.errors import DeviceError
try:
    device_facts(3)
except DeviceError as error:
    print(json.dumps(str(error)))
"""
    assert printed(driver, code).startswith("GPU 3 cannot be used: got cuDeviceGet failed")


@needs_compiler
def test_calls_that_an_old_driver_lacks_are_errors_not_crashes(tmp_path: Path) -> None:
    old = compiled(tmp_path, "-DOLD", "-DcuGraphLaunch=renamed")
    code = """
try:
    libcuda.launch(0x5000, 7)
except libcuda.CudaError as error:
    print(json.dumps([libcuda.device_uuid(), error.status]))
"""
    assert printed(old, code) == ["GPU-abababab-abab-abab-abab-abababababab", 500]


@needs_compiler
def test_a_recording_is_launched_and_nothing_is_left_of_it(driver: Path) -> None:
    code = """
with libcuda.captured(0x7000) as found:
    assert found.graph is None
executable = libcuda.instantiated(found.graph)
libcuda.launch(executable, 0x7000)
libcuda.destroy(executable)
print(json.dumps([hex(found.graph), ctypes.CDLL("libcuda.so.1").left_over()]))
"""
    assert printed(driver, code) == ["0x123456789abc", 0]  # a handle of more than 32 bits arrives whole


@needs_compiler
def test_a_recording_that_fails_gives_the_stream_back(driver: Path) -> None:
    code = """
said = []
try:
    with libcuda.captured(0x7000):
        raise KeyError("what was recorded failed")
except KeyError:
    said.append("its own error")
with libcuda.captured(0x7000) as found:
    pass
libcuda.destroy(libcuda.instantiated(found.graph))
print(json.dumps([*said, ctypes.CDLL("libcuda.so.1").left_over()]))
"""
    assert printed(driver, code) == ["its own error", 0]
    code = """
try:
    with libcuda.captured(0x7000) as found:
        pass
except libcuda.CudaError as error:
    print(json.dumps([error.status, found.graph, ctypes.CDLL("libcuda.so.1").left_over()]))
"""
    assert printed(driver, code, FAKE_CAPTURE="901") == [901, None, 0]
