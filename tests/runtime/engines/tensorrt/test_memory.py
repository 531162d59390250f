"""A Jetson kills a build that takes too much, and a user sees nothing; so what is free is looked at before."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtime.engines.tensorrt.test_libcuda import compiled, needs_compiler, printed
from vidseg.runtime.engines.tensorrt.device import DeviceFacts
from vidseg.runtime.engines.tensorrt.memory import available_bytes, check_memory
from vidseg.runtime.errors import EngineError

ORIN = DeviceFacts(
    name="Orin",
    uuid="GPU-0",
    compute_capability=(8, 7),
    driver="560.35, CUDA 12.6",
    memory_bytes=8 << 30,
    integrated=True,
)


def _meminfo(folder: Path, available_mib: int, swap_mib: int = 0) -> Path:
    path = folder / "meminfo"
    path.write_text(
        f"MemTotal:        7990272 kB\nMemFree:   12 kB\nMemAvailable:  {available_mib << 10} kB\n"
        f"SwapTotal:       3995136 kB\nSwapFree:   {swap_mib << 10} kB\n"
    )
    return path


def test_what_can_be_had_is_memory_and_swap(tmp_path: Path) -> None:
    assert available_bytes(_meminfo(tmp_path, 300, 200)) == 500 << 20
    (tmp_path / "meminfo").write_text("nothing of the kind")
    assert available_bytes(tmp_path / "meminfo") is None
    assert available_bytes(tmp_path / "missing") is None


def test_too_little_is_refused_little_is_told_and_enough_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(EngineError, match=r"out of memory: got 200 MiB of memory free\. End other programs"):
        check_memory("m", 1 << 20, ORIN, _meminfo(tmp_path, 200))
    check_memory("m", 1 << 20, ORIN, _meminfo(tmp_path, 500))
    assert "500 MiB of memory free, which may be too little" in caplog.text
    caplog.clear()
    check_memory("m", 1 << 20, ORIN, _meminfo(tmp_path, 500, 3000))
    check_memory("m", 1 << 20, ORIN, tmp_path / "missing")
    assert caplog.text == ""


def test_a_large_graph_needs_more(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="out of memory"):
        check_memory("m", 400 << 20, ORIN, _meminfo(tmp_path, 1200))


@needs_compiler
def test_a_gpu_with_memory_of_its_own_is_asked_too(tmp_path: Path) -> None:
    code = """
from dataclasses import replace
from pathlib import Path
from tests.runtime.engines.tensorrt.test_memory import ORIN, check_memory
from vidseg.runtime.errors import EngineError
for device in (ORIN, replace(ORIN, integrated=False)):
    try:
        check_memory("m", 2 << 30, device, Path("/no/meminfo"))
    except EngineError as error:
        print(json.dumps(str(error)))
"""
    said = printed(compiled(tmp_path), code, PYTHONPATH=str(Path(__file__).parents[4]))
    assert "got 5120 MiB of memory of the GPU free" in said
