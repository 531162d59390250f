"""The scripts on machines that lack what they need: a bare server, one without a GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Hides libGL in a mount namespace of its own: what a bare server looks like to opencv-python.
BARE_SERVER = """
set -e
libraries=$(dirname "$(readlink -f "$(ldconfig -p | sed -n 's/.*libGL.so.1 .*=> //p' | head -n 1)")")
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work"
mount -t overlay overlay -o "lowerdir=$libraries,upperdir=$1/upper,workdir=$1/work" "$libraries"
rm "$libraries"/libGL.so.1
shift
exec "$@"
"""


@pytest.mark.timeout(400)
def test_a_bare_server_gets_the_headless_opencv_and_is_told_so(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    bare = ["unshare", "--mount", "bash", "-c", BARE_SERVER, "bare", str(scratch)]
    if os.geteuid() or not shutil.which("unshare"):
        pytest.skip("hiding libGL needs root and unshare")
    probe = subprocess.run([*bare, "true"], capture_output=True, text=True, timeout=30, check=False)
    if probe.returncode:
        pytest.skip(f"libGL cannot be hidden here: {probe.stderr.strip()}")
    checkout = tmp_path / "checkout"
    ignored = shutil.ignore_patterns(".git", ".venv*", ".*cache", "__pycache__", ".types", "build", "tests")
    shutil.copytree(ROOT, checkout, ignore=ignored)
    environment = os.environ | {"VIDSEG_PYTHON": sys.executable, "PIP_NO_COMPILE": "1"}
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "VIDSEG_VENV"):
        environment.pop(name, None)
    command = [*bare, str(checkout / "scripts/demo"), "--source", "scene://street?frames=5&pace=max"]
    for attempt in range(2):
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=190, check=False
        )
        assert done.returncode == 0, done.stderr
        assert ("Putting opencv-python-headless in its place" in done.stderr) == (attempt == 0)
    assert (tmp_path / "vidseg-002.mp4").stat().st_size > 1000


UNPACK = """
import pathlib, sys
folder = pathlib.Path(sys.argv[1])
(folder / "unpacked").open("a").write("once ")
run = folder / "run"
run.write_text('#!/bin/sh\\nshift; PYTHONPATH={modules} exec {python} "$@"\\n')
run.chmod(0o755)
"""


def _tested_on_gpu(checkout: Path, kit: Path) -> tuple[int, str]:
    done = subprocess.run(
        [checkout / "scripts/test-gpu"], env=os.environ | {"VIDSEG_KIT": str(kit)}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr.strip()


@pytest.mark.timeout(100)
def test_the_tests_on_a_gpu_unpack_their_python_once_and_never_pass_for_want_of_something(tmp_path: Path) -> None:
    checkout, kit, modules = tmp_path / "checkout", tmp_path / "kit", tmp_path / "modules"
    (checkout / "scripts").mkdir(parents=True)
    for name in ("test-gpu", "environment"):
        shutil.copy(ROOT / "scripts" / name, checkout / "scripts")
    kit.mkdir()
    (kit / "unpack.py").write_text(UNPACK.format(modules=modules, python=sys.executable))
    code, said = _tested_on_gpu(checkout, kit)
    assert (code, "has no TensorRT or no pycuda" in said) == (3, True)
    for name in ("tensorrt", "pycuda"):
        (modules / name).mkdir(parents=True)
        (modules / name / "__init__.py").touch()
    (modules / "pycuda/driver.py").touch()
    code, said = _tested_on_gpu(checkout, kit)
    assert (code, "There are no bundles here" in said) == (3, True)
    assert (kit / "unpacked").read_text() == "once "
