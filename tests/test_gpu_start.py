"""`vidseg run` where GPU, driver and TensorRT are there, and no plan comes of it: it serves, or ends when told to.

The driver is a C library that answers as one; TensorRT's builds end as the test says.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.engines.tensorrt.test_libcuda import compiled
from vidseg.runtime.engines.tensorrt import libcuda
from vidseg.runtime.pipeline.opening import demo_bundle_path

ROOT = Path(__file__).parents[1]
TENSORRT = "from tests.runtime.engines.tensorrt.dying_tensorrt import *\n__version__ = '10.3.0'\n"
RUN = [sys.executable, "-m", "vidseg", "run", "--source", "scene://street?frames=3&pace=max", "--sink", "null://"]
DEADLINE_S = 60

pytestmark = [
    pytest.mark.timeout(DEADLINE_S + 30),
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler for the stand-in of the driver"),
]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    modules = tmp_path / "modules"
    for name, text in {"tensorrt/__init__.py": TENSORRT, "pycuda/__init__.py": "", "pycuda/driver.py": ""}.items():
        (modules / name).parent.mkdir(parents=True, exist_ok=True)
        (modules / name).write_text(text)
    (tmp_path / "driver").mkdir()
    (tmp_path / "scratch").mkdir()
    own = {
        "PYTHONPATH": f"{modules}:{ROOT}", "LD_LIBRARY_PATH": str(compiled(tmp_path / "driver")),
        "TMPDIR": str(tmp_path / "scratch"), "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }  # fmt: skip
    return os.environ | own


@pytest.mark.parametrize("engine", ["auto", "tensorrt"])
def test_where_no_plan_can_be_built_auto_serves_from_the_cpu_and_says_why(
    environment: dict[str, str], engine: str
) -> None:
    done = subprocess.run(
        [*RUN, "--engine", engine], env=environment | {"BUILD_ENDS": "SIGKILL"}, capture_output=True, text=True,
        timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert "it was killed, as the system does when it is out of memory" in done.stderr
    if engine == "tensorrt":
        assert done.returncode == 4, done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert "the GPU is not used" in done.stderr
        assert "3 frames" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_whoever_does_not_want_to_wait_for_the_plan_gets_the_terminal_back(
    environment: dict[str, str], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    heeds = ["env", f"--default-signal={number.name.removeprefix('SIG')}"]  # whatever started the tests may ignore it
    process = subprocess.Popen(
        [*heeds, *RUN], env=environment | {"BUILD_ENDS": "hang"}, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "building a plan" in line:
                break
        process.send_signal(number)
        _, said = process.communicate(timeout=10)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == code, said
    assert "Traceback" not in said
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize("command", ["run", "bench"])
def test_a_driver_that_answers_only_half_of_the_questions_costs_the_gpu_and_not_the_run(
    environment: dict[str, str], command: str
) -> None:
    arguments = RUN if command == "run" else [*RUN[:3], "bench", str(demo_bundle_path()), "--seconds", "0"]
    done = subprocess.run(
        arguments, env=environment | {"FAKE_MEMORY": "999"}, capture_output=True, text=True, timeout=DEADLINE_S,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "the GPU is not used: GPU 0 cannot be used" in done.stderr


@pytest.mark.skipif(libcuda.available() is None, reason="this machine has a GPU")
def test_without_a_gpu_nothing_is_opened_before_the_one_line_that_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [*RUN[:4], "--engine", "tensorrt"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (6, 1)
    assert done.stderr.startswith("vidseg: there is no GPU for TensorRT")
    assert list(tmp_path.iterdir()) == []
