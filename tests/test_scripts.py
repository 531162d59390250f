"""The two commands of the README on a machine that lacks what a desktop has."""

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
    environment = os.environ | {"VIDSEG_PYTHON": sys.executable}
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
