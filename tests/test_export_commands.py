"""The commands around INT8 as a person types them: one clear line, the right code, nothing half-written."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.export.models import ModelSpec, write_model
from tests.test_cli import VIDSEG, vidseg


def _quantized(path: Path, zero_point: int) -> Path:
    weights = [
        onnx.numpy_helper.from_array(np.array(0.1, np.float32), "scale"),
        onnx.numpy_helper.from_array(np.array(zero_point, np.int8), "zero"),
        onnx.numpy_helper.from_array(np.ones((16, 16, 1, 1), np.float32), "w"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("Conv", ["d", "w"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 16, 4, 4]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def test_lint_names_rule_place_and_reason(tmp_path: Path) -> None:
    good = vidseg("lint", str(_quantized(tmp_path / "good.onnx", 0)), folder=tmp_path)
    assert good.returncode == 0, good.stderr
    bad = vidseg("lint", str(_quantized(tmp_path / "bad.onnx", 3)), folder=tmp_path)
    assert bad.returncode == 1
    assert "error: zero point 0: q: 3. TensorRT quantizes symmetrically." in bad.stdout
    document = json.loads(vidseg("lint", str(tmp_path / "bad.onnx"), "--json", folder=tmp_path).stdout)
    assert {found["rule"] for found in document["findings"]} >= {"zero point 0"}


def test_lint_of_something_else_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"\x08\xff no model")
    for name in ("no.onnx", "missing.onnx"):
        done = vidseg("lint", name, folder=tmp_path)
        assert done.returncode == 3
        assert done.stderr.count("\n") == 1
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--rtx", "86"), 2, "no --calib"),
        (("--calib", "frames/", "--rtx", "8.6"), 2, "Write 8.6 and 12.0 as 86,120"),
        (("--calib", "frames/", "--max-miou-drop", "-1"), 2, "between 0 and 100"),
        (("--calib", "missing.mp4"), 5, "missing.mp4"),
        (("--calib", "frames/", "--verify-images", "frames/"), 2, "both folders"),
        (("--calib", "frames/", "--plan", "model.onnx"), 3, "not a plan"),
    ],
)
def test_bad_options_are_one_line(tmp_path: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    write_model(tmp_path / "model.onnx", ModelSpec())
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\n")
    (tmp_path / "frames").mkdir()
    done = vidseg("export", "model.onnx", "--labels", "classes.txt", "--out", "out.vidseg", *arguments, folder=tmp_path)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.vidseg").exists()


def test_a_model_with_nothing_to_quantize_says_so(tmp_path: Path) -> None:
    write_model(tmp_path / "model.onnx", ModelSpec())
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\n")
    calib = "scene://street?pace=max&fps=1&frames=20&size=64x48"
    done = vidseg(
        "export", "model.onnx", "--labels", "classes.txt", "--out", "o.vidseg", "--calib", calib, folder=tmp_path
    )
    assert done.returncode == 3
    assert "there is nothing to quantize" in done.stderr


def test_frames_of_a_live_source_are_recorded(tmp_path: Path) -> None:
    done = vidseg(
        "record-calib", "scene://street?size=64x48&fps=30", "--out", "frames", "--frames", "4", "--interval", "0.2",
        folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "frames").glob("*.png"))) == 4
    again = vidseg("record-calib", "scene://street?size=64x48", "--out", "frames", folder=tmp_path)
    assert again.returncode == 3  # nothing of a person's is overwritten


def test_ctrl_c_keeps_what_was_recorded(tmp_path: Path) -> None:
    running = subprocess.Popen(
        ["env", "--default-signal=INT", *VIDSEG, "record-calib", "scene://street?size=64x48&fps=30", "--out", "frames",
         "--frames", "1000", "--interval", "0"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not list((tmp_path / "frames").glob("*.png")):  # ends with the test's own timeout
        assert running.poll() is None, running.communicate()[1]
    running.send_signal(signal.SIGINT)
    output, _ = running.communicate(timeout=20)
    assert running.returncode == 0
    assert "stopped" in output
    assert len(list((tmp_path / "frames").glob("*.png"))) == int(output.split()[0])
