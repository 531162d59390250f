"""What users are told of their privacy has to be true: libraries would keep numbers in their homes, and send events."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path

import pytest

from tests.export.models import ModelSpec, write_model
from tests.test_cli import VIDSEG

MODEL = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))
"""


def _export(folder: Path, *arguments: str) -> list[Path]:
    """Export with an empty home and an empty place for temporary files; gives what is in the two afterwards."""
    (folder / "classes.txt").write_text("a\nb\nc\nd\n")
    places = {"HOME": folder / "home", "TMPDIR": folder / "scratch"}
    for place in places.values():
        place.mkdir()
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_"))}
    command = [*VIDSEG, "export", *arguments, "--labels", "classes.txt", "--out", "out.vidseg"]
    done = subprocess.run(
        command, cwd=folder, env=ours | {name: str(place) for name, place in places.items()}, capture_output=True,
        text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [path for place in places.values() for path in place.rglob("*")]


def test_an_export_writes_its_bundle_and_nothing_else(tmp_path: Path) -> None:
    write_model(tmp_path / "model.onnx", ModelSpec())
    assert _export(tmp_path, "model.onnx") == []


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs PyTorch")
def test_nor_does_one_from_pytorch(tmp_path: Path) -> None:
    (tmp_path / "network.py").write_text(MODEL)
    assert _export(tmp_path, "network:build", "--size", "64x48") == []
