"""The commands around INT8 as a person types them: one clear line, the right code, nothing half-written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.conftest import Command
from tests.export.models import ModelSpec, write_model, write_wide_model
from tests.test_cli import VIDSEG, vidseg
from vidseg.export.quantization import QuantizationRequest


def _quantized(path: Path, zero_point: int, pairs: int = 1) -> Path:
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
    for number in range(1, pairs):
        nodes += [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], [f"q{number}"]),
            helper.make_node("DequantizeLinear", [f"q{number}", "scale", "zero"], [f"d{number}"]),
            helper.make_node("Conv", [f"d{number}", "w"], [f"y{number}"]),
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
    assert "error: zero point 0 (2): q: 3; d: 3. TensorRT quantizes symmetrically." in bad.stdout
    document = json.loads(vidseg("lint", str(tmp_path / "bad.onnx"), "--json", folder=tmp_path).stdout)
    assert {found["rule"] for found in document["findings"]} >= {"zero point 0"}


def test_lint_tells_each_reason_once(tmp_path: Path) -> None:
    """A model that another tool quantized breaks a rule at every tensor: a screen of it hides the other rules."""
    path = str(_quantized(tmp_path / "bad.onnx", 3, pairs=20))
    printed = vidseg("lint", path, folder=tmp_path).stdout
    assert "error: zero point 0 (40): q: 3; d: 3; q1: 3 and 37 more. TensorRT quantizes symmetrically." in printed
    assert printed.count("TensorRT quantizes symmetrically") == 1
    found = json.loads(vidseg("lint", path, "--json", folder=tmp_path).stdout)["findings"]
    assert sum(finding["rule"] == "zero point 0" for finding in found) == 40


def test_lint_of_something_else_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"\x08\xff no model")
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "folder").mkdir()
    for name, message in (
        ("no.onnx", "not an ONNX model"),
        ("missing.onnx", "there is no such file."),
        ("empty.onnx", "got an empty file"),
        ("folder", "got a folder"),
        ("/dev/null", "got a device or a pipe"),
    ):
        done = vidseg("lint", name, folder=tmp_path)
        assert done.returncode == 3
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
        assert "Traceback" not in done.stderr


LABELLED = ("--calib", "frames/", "--verify-images", "frames/", "--verify-labels", "frames/")
FOR_LABELS = (("--verify-map", "map"), ("--verify-ignore", "0"), ("--max-miou-drop", "1"), ("--max-class-drop", "1"))
FOR_INT8 = (
    *FOR_LABELS, ("--calib-frames", "9"), ("--verify-images", "frames/"), ("--verify-labels", "frames/"),
    ("--max-disagreement", "1"), ("--plan", "report.json"), ("--rtx", "86"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        *(((name, value), 2, f"{name} is for INT8: got no --calib") for name, value in FOR_INT8),
        *((("--calib", "frames/", name, value), 2, f"{name} is for labelled pictures") for name, value in FOR_LABELS),
        ((*LABELLED, "--max-disagreement", "1"), 2, "--max-disagreement is for frames without labels"),
        (("--dla",), 2, "--dla is for INT8: got no --calib"),
        (("--calib", "frames/", "--rtx", "8.6"), 2, "Write 8.6 and 12.0 as 86,120"),
        ((*LABELLED, "--max-miou-drop", "-1"), 2, "--max-miou-drop is a number between 0 and 100: got -1"),
        ((*LABELLED, "--max-class-drop", "nan"), 2, "--max-class-drop is a number between 0 and 100: got nan"),
        (("--calib", "frames/", "--max-disagreement", "101"), 2, "--max-disagreement is a number between 0 and 100"),
        (("--calib", "missing.mp4"), 5, "missing.mp4"),
        (("--calib", "frames/", "--verify-images", "frames/"), 2, "both folders"),
        (("--calib", "frames/", "--plan", "model.onnx"), 3, "model.onnx: not a plan: got something else than JSON"),
        (("--calib", "frames/", "--plan", "none.json"), 3, "none.json: there is no such file."),
        (("--out", "/proc/out.vidseg"), 3, "nothing can be written in its folder"),
    ],
)
def test_bad_options_are_one_line(
    tmp_path: Path, in_process: Command, arguments: tuple[str, ...], code: int, message: str
) -> None:
    write_model(tmp_path / "model.onnx", ModelSpec())
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\n")
    (tmp_path / "frames").mkdir()
    found, said = in_process("export", "model.onnx", "--labels", "classes.txt", "--out", "out.vidseg", *arguments)
    assert found == code, said
    (line,) = [line for line in said.splitlines() if line.startswith("vidseg: ")]
    assert message in line
    assert "Traceback" not in said
    assert not (tmp_path / "out.vidseg").exists()


def test_the_help_gives_the_numbers_that_count(tmp_path: Path) -> None:
    printed = " ".join(vidseg("export", "--help", folder=tmp_path).stdout.split())
    request = QuantizationRequest(frames_uri="clip.mp4")
    budget = request.budget
    for name, value in (
        ("--calib-frames", request.frames), ("--verify-ignore", request.ignore),
        ("--max-miou-drop", budget.max_miou_drop), ("--max-class-drop", budget.max_class_drop),
        ("--max-disagreement", budget.max_disagreement),
    ):  # fmt: skip
        described = printed[printed.rindex(f"{name} ") :].partition(" --")[0]
        assert f"[default: ({value})" in described


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


def test_a_recording_that_falls_short_says_of_how_many(tmp_path: Path) -> None:
    done = vidseg(
        "record-calib", "scene://street?size=64x48&fps=30", "--out", "frames", "--seconds", "1", "--interval", "0.5",
        folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert " of 100 frames in frames (time over)" in done.stdout


@pytest.mark.parametrize(("option", "value"), [("--seconds", "inf"), ("--seconds", "1e300"), ("--interval", "inf")])
def test_a_recording_without_end_is_refused(tmp_path: Path, option: str, value: str) -> None:
    done = vidseg("record-calib", "scene://street?size=64x48", "--out", "frames", option, value, folder=tmp_path)
    assert done.returncode == 2
    assert "finite time" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "frames").exists()


SIGNALS = pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)


def _started(number: signal.Signals, *arguments: str, folder: Path, **variables: str) -> subprocess.Popen[str]:
    heeds = ["env", f"--default-signal={number.name.removeprefix('SIG')}"]  # whatever started the tests may ignore it
    return subprocess.Popen(
        [*heeds, *VIDSEG, *arguments], cwd=folder, env=os.environ | variables, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@SIGNALS
def test_a_signal_keeps_what_was_recorded(tmp_path: Path, number: signal.Signals, code: int) -> None:
    running = _started(
        number, "record-calib", "scene://street?size=64x48&fps=30", "--out", "frames", "--frames", "1000",
        "--interval", "0", folder=tmp_path,
    )  # fmt: skip
    while not list((tmp_path / "frames").glob("*.png")):  # ends with the test's own timeout
        assert running.poll() is None, running.communicate()[1]
    running.send_signal(number)
    output, _ = running.communicate(timeout=20)
    assert running.returncode == code
    assert "of 1000 frames in frames (stopped)" in output
    assert len(list((tmp_path / "frames").glob("*.png"))) == int(output.split()[0])


@SIGNALS
def test_a_signal_ends_an_export_with_nothing_left_behind(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """Of 300 frames at 1024x512, 0.9 GB would stay in TMPDIR."""
    work, scratch = tmp_path / "work", tmp_path / "scratch"
    work.mkdir()
    scratch.mkdir()
    write_wide_model(tmp_path / "model.onnx", (96, 64))
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\n")
    running = _started(
        number, "export", "../model.onnx", "--labels", "../classes.txt", "--out", "out.vidseg", "--frames",
        "scene://street?pace=max&fps=1&frames=4&size=96x64", "--calib",
        "scene://street?pace=max&fps=1&frames=9000&size=96x64", folder=work, TMPDIR=str(scratch),
    )  # fmt: skip
    assert running.stderr is not None
    for line in running.stderr:  # ends with the test's own timeout
        if line.startswith("reading scene"):
            break
    assert list(scratch.glob("vidseg-frames-*"))
    running.send_signal(number)
    _, errors = running.communicate(timeout=20)
    assert running.returncode == code, errors
    assert errors.count("\n") == 1
    assert f"vidseg: ended by {number.name}" in errors
    assert "The same command goes on from the calibration" in errors
    assert not list(scratch.iterdir())
    assert not list(work.iterdir())
