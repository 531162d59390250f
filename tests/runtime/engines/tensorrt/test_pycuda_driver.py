"""pycuda itself, over a driver that is none: calls that it does not know, or takes otherwise, would end a run on a GPU.

pycuda is compiled against CUDA's headers, so this is skipped where it is not installed; `scripts/build-pycuda` builds
it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vidseg.runtime.engines.tensorrt import libcuda

HERE = Path(__file__).parent
pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("pycuda") is None, reason="no pycuda"),
    pytest.mark.skipif(libcuda.available() is None, reason="this machine has a GPU"),
]

CODE = """
import ctypes, json
import numpy as np
from vidseg.runtime.engines.tensorrt.kernels import FrameKernels
from vidseg.runtime.engines.tensorrt.pycuda_driver import PycudaDriver
from vidseg.runtime.engines.tensorrt.tables import look_of
from vidseg.runtime.errors import VidsegError
from vidseg.runtime.geometry import placement_of
from vidseg.runtime.manifest import ClassSpec
from vidseg.runtime.overlay import OverlayStyle

def error_of(call):
    try:
        call()
    except VidsegError as error:
        return [type(error).__name__, str(error)]

said = {}
cuda = PycudaDriver()
with cuda:
    said["integrated"] = cuda.integrated
    memory, host, back = cuda.allocate(16), cuda.pinned((2, 2), np.float32), cuda.pinned((4,), np.float32)
    host[:] = [[1, 2], [3, 4]]
    said["offset"] = cuda.address_of(host[1:]) - cuda.address_of(host)
    stream, other = cuda.stream(), cuda.stream()
    mark, start, end = cuda.event(), cuda.event(timing=True), cuda.event(timing=True)
    cuda.upload(memory.address, host, stream)
    mark.record(stream)
    other.wait(mark)
    cuda.download(back, memory.address, other)
    mark.synchronize()
    other.synchronize()
    said["copied"] = back.tolist()
    start.record(stream)
    end.record(stream)
    said["ms"] = end.elapsed_ms(start)
    with FrameKernels(cuda) as kernels:
        frame, placement = cuda.allocate(640 * 480 * 3), placement_of((640, 480), (320, 240), "letterbox")
        look = look_of((ClassSpec(name="road", color_rgb=(1, 2, 3)),), OverlayStyle())
        kernels.fit(stream, frame.address, placement, frame.address)
        kernels.blend(stream, frame.address, memory.address, (320, 240), placement, look=look, picture=frame.address)
        graph = cuda.capture(stream, lambda: kernels.fit(stream, frame.address, placement, frame.address))
        graph.launch(stream)
        graph.free()
        stream.synchronize()
    said["unknown"] = error_of(lambda: cuda.kernel(b".visible .entry", "nothing", "PP"))
    said["full"] = error_of(lambda: cuda.allocate(2 << 30))
    ctypes.CDLL(None).setenv(b"FAKE_SYNC", b"700", 1)
    said["once"] = error_of(stream.synchronize)
    for piece in (memory, frame):
        piece.free()
        piece.free()
    del host, back, stream, other, mark, start, end, kernels, graph
ctypes.CDLL(None).unsetenv(b"FAKE_SYNC")
first, second = PycudaDriver(), PycudaDriver()
first.__enter__()
mine = first.allocate(16)
second.__enter__()
also_mine = first.allocate(16)
first_stream = second.stream()
mine.free()
also_mine.free()
first.__exit__(None, None, None)  # in the order in which they were opened
first_stream.synchronize()
second.allocate(16).free()
del first_stream
second.__exit__(None, None, None)
driver = ctypes.CDLL("libcuda.so.1")
said["left"] = driver.still_there() + driver.left_over()
print(json.dumps(said))
"""


def test_every_call_is_taken_and_nothing_is_left(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("pycuda")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(next(iter(spec.submodule_search_locations)))
    sources = [HERE / "driver.c", HERE / "driver_memory.c"]
    there = set(re.findall(r"^int (cu\w+)\(", "\n".join(path.read_text() for path in sources), re.MULTILINE))
    named = subprocess.run(
        ["nm", "-D", "--undefined-only", *folder.glob("*.so")], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    missing = sorted(set(re.findall(r" U (cu\w+)", named)) - there)
    (tmp_path / "rest.c").write_text("".join(f"int {name}(void) {{ return 0; }}\n" for name in missing))
    command = ["cc", "-w", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(tmp_path / "libcuda.so.1")]
    subprocess.run([*command, *sources, tmp_path / "rest.c"], check=True, timeout=60)
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=os.environ | {"LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["integrated"] is True
    assert said["offset"] == 8
    assert said["copied"] == [1, 2, 3, 4]
    assert said["ms"] == 1.5
    assert said["unknown"][0] == "EngineError"
    assert said["full"][0] == "OutOfMemoryError"
    assert "MiB are free" in said["full"][1]
    assert said["once"][0] == "EngineError"  # the context itself still answers
    assert said["left"] == 0
