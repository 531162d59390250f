"""`vidseg build` on a machine that cannot build says so in one line, before it starts; programs get an exit code."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vidseg.build_command import sources_of
from vidseg.runtime.engines.tensorrt import libcuda
from vidseg.runtime.errors import UsageError
from vidseg.runtime.pipeline.opening import demo_bundle_path

ROOT = Path(__file__).parents[1]
DRIVER = ROOT / "tests/runtime/engines/tensorrt/driver.c"


def _build(*arguments: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "vidseg", "build", str(demo_bundle_path()), *arguments],
        env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr.strip()


@pytest.mark.skipif(libcuda.available() is None, reason="this machine has a GPU")
def test_without_a_gpu_it_ends_with_one_line_and_code_6() -> None:
    code, said = _build()
    assert (code, len(said.splitlines())) == (6, 1)
    assert said.startswith("vidseg: there is no GPU for TensorRT: got no NVIDIA driver")


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler for the stand-in of the driver")
def test_without_pycuda_or_tensorrt_it_says_how_to_install_them_and_ends_with_code_4(tmp_path: Path) -> None:
    library = tmp_path / "libcuda.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(DRIVER)], check=True, timeout=60)
    hidden = "raise ImportError('hidden')"
    for name in ("pycuda", "tensorrt"):
        (tmp_path / f"{name}.py").write_text(hidden)
    code, said = _build(LD_LIBRARY_PATH=str(tmp_path), PYTHONPATH=str(tmp_path))
    assert (code, len(said.splitlines())) == (4, 1)
    assert 'pip install "vidseg[tensorrt]"' in said


@pytest.mark.parametrize(
    "options",
    [("--precision", "fp8"), ("--batch", "0"), ("--batch", "65"), ("--tactic-sources", "cublas"),
     ("--optimization-level", "9"), ("--dla", "0", "--precision", "fp32")],
)  # fmt: skip
def test_options_that_make_no_sense_end_with_code_2(options: tuple[str, ...]) -> None:
    code, said = _build(*options)
    assert (code, len(said.splitlines())) == (2, 1)


def test_tactic_sources_are_a_list_of_names() -> None:
    assert sources_of(None) is None
    assert sources_of("") == ()
    assert sources_of("CUBLAS,CUBLAS_LT") == ("CUBLAS", "CUBLAS_LT")
    for text in ("cublas", "CUBLAS,", ",", "CUBLAS CUDNN"):
        with pytest.raises(UsageError, match="--tactic-sources is a list of names"):
            sources_of(text)
