"""A table of other frames, or of another version's tensors, calibrates a model that nobody has."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from vidseg.calibration.ranges import METHODS
from vidseg.calibration.table import FORMAT, CalibrationTable, TensorRange
from vidseg.export.table_cache import TableCache

MODEL, FRAMES = "a" * 64, "b" * 64
TABLE = CalibrationTable(
    format=FORMAT,
    model_sha256=MODEL,
    frames_sha256=FRAMES,
    frames=3,
    equalization={},
    tensors={name: TensorRange(amax=dict.fromkeys(METHODS, 1.5), method="mse", signed=False) for name in ("x", "y")},
)


@pytest.fixture
def cache(tmp_path: Path) -> TableCache:
    cache = TableCache(tmp_path / "cache", MODEL)
    cache.write("openvino", TABLE)
    return cache


def test_a_table_is_read_as_it_was_written_and_for_that_engine_only(cache: TableCache) -> None:
    assert cache.read("openvino", FRAMES, ["y", "x"]) == TABLE
    assert cache.holds("openvino")
    assert cache.read("onnxruntime", FRAMES, ["x", "y"]) is None
    assert not cache.holds("onnxruntime")


def test_other_frames_models_and_tensors_have_no_table(cache: TableCache, tmp_path: Path) -> None:
    assert cache.read("openvino", "c" * 64, ["x", "y"]) is None
    assert cache.read("openvino", FRAMES, ["x"]) is None
    assert cache.read("openvino", FRAMES, ["x", "y", "z"]) is None
    assert TableCache(tmp_path / "cache", "d" * 64).read("openvino", FRAMES, ["x", "y"]) is None


def test_a_table_with_other_methods_is_none(cache: TableCache) -> None:
    other = TensorRange(amax={"mse": 1.0}, method="mse", signed=False)
    cache.write("openvino", msgspec.structs.replace(TABLE, tensors={"x": other, "y": other}))
    assert cache.read("openvino", FRAMES, ["x", "y"]) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff" * 100])
def test_a_damaged_file_is_none(cache: TableCache, tmp_path: Path, content: bytes) -> None:
    (file,) = (tmp_path / "cache").glob("*.json")
    file.write_bytes(content)
    assert cache.read("openvino", FRAMES, ["x", "y"]) is None


def test_a_folder_that_others_may_write_to_is_neither_read_nor_written(cache: TableCache, tmp_path: Path) -> None:
    (tmp_path / "cache").chmod(0o777)
    before = sorted((tmp_path / "cache").iterdir())
    assert cache.read("openvino", FRAMES, ["x", "y"]) is None
    lines: list[str] = []
    TableCache(tmp_path / "cache", MODEL, lines.append).write("onnxruntime", TABLE)
    assert sorted((tmp_path / "cache").iterdir()) == before
    assert len(lines) == 1
    assert "not kept" in lines[0]
    TableCache(None, MODEL).write("openvino", TABLE)
    assert TableCache(None, MODEL).read("openvino", FRAMES, ["x", "y"]) is None
