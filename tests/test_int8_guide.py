"""The page on INT8, run as its reader would: what it promises has to come out of the commands that it gives."""

from __future__ import annotations

import importlib.util
import json
import shlex
import sys
from pathlib import Path

import pytest

from tests import reader_material
from tests.reader_material import blocks, commands, run
from vidseg.calibration.table import parse_table, parse_tensorrt_cache
from vidseg.runtime.bundle import open_bundle

PAGE = (Path(__file__).parents[1] / "docs/int8.md").read_text()
SIZE_WH = (160, 120)


@pytest.mark.timeout(240)
def test_every_command_works_in_the_order_given(tmp_path: Path) -> None:
    reader_material.write(tmp_path, SIZE_WH)
    has_rtx = importlib.util.find_spec("tensorrt_rtx_bindings") is not None
    typed = [command for command in commands(PAGE) if has_rtx or "--rtx" not in command]
    outputs = {}
    for command in typed:
        done = run(shlex.split(command), tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        outputs[command] = done.stdout
    first, again = (open_bundle(tmp_path / name).members for name in ("model.vidseg", "again.vidseg"))
    repeated = [name for name in first if name.endswith(".onnx")]
    assert "int8.onnx" in repeated
    assert repeated == [name for name in again if name.endswith(".onnx")]
    assert all(first[name] == again[name] for name in [*repeated, "calibration.json"])
    assert open_bundle(tmp_path / "model").members == first
    assert (tmp_path / "model/report.html").read_text().startswith("<!doctype html>")
    assert list((tmp_path / "frames").glob("*.png"))
    judged = json.loads(open_bundle(tmp_path / "judged.vidseg").members["report.json"])
    assert judged["frames"]["verification"] == "3 labelled pictures"
    assert " 0 findings" in outputs["vidseg lint model/int8.onnx"]
    if has_rtx:
        plans = json.loads(open_bundle(tmp_path / "rtx.vidseg").members["report.json"])["tensorrt_rtx"]["plans"]
        assert [plan["compute_capability"] for plan in plans] == [86, 120]
    (snippet,) = blocks(PAGE, "python")
    done = run([sys.executable, "-c", snippet], tmp_path)
    assert done.returncode == 0, done.stderr
    cache = parse_tensorrt_cache((tmp_path / "calibration.cache").read_text(), "calibration.cache")
    assert cache.keys() == parse_table(first["calibration.json"], "calibration.json").tensors.keys()
