"""The process runs in the system's Python, which may be older than ours and has none of our dependencies."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.runtime.sources.gstreamer.bindings import needs_gstreamer
from vidseg.runtime.clock import SystemClock
from vidseg.runtime.errors import SourceRefusedError
from vidseg.runtime.sources.gstreamer import process
from vidseg.runtime.sources.gstreamer.process import CHILD
from vidseg.runtime.sources.gstreamer.sources import gst_source

ROOT = Path(__file__).parents[4]
LOADED = f"""
import runpy, sys
runpy.run_path({str(CHILD)!r})["find_vidseg"]()
import vidseg.runtime.sources.gstreamer.player
print(*(module.__file__ for name, module in sys.modules.items() if name.startswith("vidseg") and module.__spec__))
print(*(name for name in sys.modules if name.partition(".")[0] not in {{*sys.stdlib_module_names, "vidseg"}}))
"""
pytestmark = pytest.mark.timeout(60)


def test_it_loads_a_few_files_of_ours_that_python_3_8_reads_and_nothing_else() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", LOADED], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    files, others = done.stdout.splitlines()
    assert set(others.split()) <= {"__main__", "__mp_main__"}
    paths = [Path(file) for file in files.split()]
    assert {path.name for path in paths} == {
        "__init__.py", "descriptions.py", "outlet.py", "player.py", "shared_pictures.py"
    }  # fmt: skip
    for path in [CHILD, *paths]:
        ast.parse(path.read_text(), feature_version=(3, 8))


def test_a_python_without_the_bindings_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("gi"):
        pytest.skip("this Python has the bindings")
    monkeypatch.setattr(process, "SYSTEM_PYTHON", Path(sys.executable))
    source = gst_source("gst:videotestsrc")
    with pytest.raises(SourceRefusedError, match=r"No module named 'gi'.*sudo apt install python3-gi"):
        source.open(SystemClock(), threading.Event())
    monkeypatch.setattr(process, "SYSTEM_PYTHON", Path("/nothing/python3"))
    with pytest.raises(SourceRefusedError, match="GStreamer needs PyGObject"):
        source.open(SystemClock(), threading.Event())


@needs_gstreamer
def test_it_starts_from_where_a_wheel_puts_it(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src/vidseg", tmp_path / "vidseg", ignore=ignored)
    shutil.copytree(ROOT / "runtime", tmp_path / "vidseg/runtime", ignore=ignored)
    script = (
        f"import sys, threading; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from vidseg.runtime.clock import SystemClock\n"
        "from vidseg.runtime.sources.gstreamer.process import CHILD\n"
        "from vidseg.runtime.sources.opening import source_from_uri\n"
        "source = source_from_uri('gst:videotestsrc is-live=true')\n"
        "source.open(SystemClock(), threading.Event())\n"
        "print(CHILD, source.read().image.shape)\n"
        "source.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False
    )
    child = tmp_path / "vidseg/runtime/sources/gstreamer/child.py"
    assert done.stdout == f"{child} (240, 320, 3)\n", done.stderr
