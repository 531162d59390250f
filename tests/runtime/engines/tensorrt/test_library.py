"""TensorRT comes in releases that differ; what one can do is asked of it, and one that is missing is one clear line."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from vidseg.runtime.engines.tensorrt import library as under_test
from vidseg.runtime.engines.tensorrt.library import ABILITIES, find_library, installed, load_library
from vidseg.runtime.errors import EngineError

RTX = "tensorrt_rtx_bindings"
needs_rtx = pytest.mark.skipif(importlib.util.find_spec(RTX) is None, reason='pip install "vidseg[rtx]"')


def test_without_the_library_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "MODULES", ("no_such_tensorrt",))
    assert not installed()
    with pytest.raises(EngineError, match=r'there is no TensorRT here.*pip install "vidseg\[tensorrt\]"'):
        find_library()


def test_type_stubs_alone_are_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stubs_alone").mkdir()
    (tmp_path / "stubs_alone/__init__.pyi").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(under_test, "MODULES", ("stubs_alone",))
    assert not installed()


def test_a_library_that_does_not_load_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "libnvinfer.so.10: cannot open shared object file"
    (tmp_path / "broken_tensorrt.py").write_text(f"raise ImportError({text!r})")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(under_test, "MODULES", ("broken_tensorrt",))
    assert installed()
    with pytest.raises(EngineError, match="the module broken_tensorrt cannot be loaded: got libnvinfer"):
        find_library()


@needs_rtx
def test_the_abilities_of_tensorrt_rtx() -> None:
    library = load_library(RTX)
    abilities = library.abilities
    assert library.version.startswith("1.")
    assert (abilities.strongly_typed, abilities.progress, abilities.ahead_of_time) == (True, True, True)
    assert (abilities.weakly_typed, abilities.ranges) == (False, False)
    for places in ABILITIES.values():  # a class that no release has would make an ability False everywhere
        for name, _ in places:
            assert hasattr(library.module, name)


@needs_rtx
def test_there_is_one_logger_and_it_keeps_the_reason_of_a_failure() -> None:
    library = load_library(RTX)
    assert load_library(RTX).logger is library.logger
    severity = library.module.ILogger.Severity
    library.logger.log(severity.ERROR, "first")
    library.logger.log(severity.ERROR, "second")
    library.logger.log(severity.WARNING, "not an error")
    assert library.take_errors() == ["first", "second"]
    assert (library.take_errors(), library.last_error()) == ([], "")


@needs_rtx
def test_the_reason_is_what_was_said_last() -> None:
    library = load_library(RTX)
    library.logger.log(library.module.ILogger.Severity.ERROR, "an hour ago")
    library.logger.log(library.module.ILogger.Severity.ERROR, "f: Error Code 4: API Usage Error (now)")
    assert library.last_error() == "now"
    assert library.last_error() == ""


def test_asking_for_the_library_does_not_load_it() -> None:
    code = (
        "import sys; from vidseg.runtime.engines.tensorrt.library import installed; installed();"
        "sys.exit(any('tensorrt' in name and 'vidseg' not in name for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
