"""kernels.cu on a machine without a GPU: compiled as C++ and run for one thread after another."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.fake_cuda import FakeCuda
from tests.fake_streams import Arguments, FakeFunction
from vidseg.runtime.engines.tensorrt import kernels
from vidseg.runtime.engines.tensorrt.cuda import Grid

SOURCE = Path(kernels.__file__).with_name("kernels.cu")

# What the CUDA compiler knows by itself, and a loop over the threads from `begin` to `end` of a grid.
SHIM = """
#include <algorithm>
#include <cstddef>
using std::min;
struct Place { unsigned x, y, z; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) ushort4 { unsigned short x, y, z, w; };
static thread_local Place blockIdx, threadIdx, blockDim, gridDim;
#define __global__
#define __device__
#include "kernels.cu"

// Called by what the compiler's alignment sanitizer adds: a GPU fails for good where a CPU is patient.
static thread_local size_t misaligned;
extern "C" void __ubsan_handle_type_mismatch_v1(void *, void *) { ++misaligned; }
extern "C" size_t misaligned_so_far() { return misaligned; }

template <class... Declared, class... Given>
static void each(const unsigned *shape, size_t begin, size_t end, void (*kernel)(Declared...), Given... given) {
    gridDim = {shape[0], shape[1], shape[2]};
    blockDim = {shape[3], shape[4], shape[5]};
    for (size_t thread = begin; thread < end; ++thread) {
        const size_t inner = thread % (blockDim.x * blockDim.y * blockDim.z);
        const size_t outer = thread / (blockDim.x * blockDim.y * blockDim.z);
        threadIdx.x = inner % blockDim.x;
        threadIdx.y = inner / blockDim.x % blockDim.y;
        threadIdx.z = inner / blockDim.x / blockDim.y;
        blockIdx.x = outer % gridDim.x;
        blockIdx.y = outer / gridDim.x % gridDim.y;
        blockIdx.z = outer / gridDim.x / gridDim.y;
        kernel(given...);
    }
}
extern "C" void run_fit(const unsigned *shape, size_t begin, size_t end, const unsigned char *frame,
                        const int4 *columns, const int4 *rows, unsigned char *input, int frame_width, int width,
                        int height) {
    each(shape, begin, end, fit, frame, columns, rows, input, frame_width, width, height);
}
extern "C" void run_blend(const unsigned *shape, size_t begin, size_t end, const unsigned char *frame,
                          const unsigned char *class_map, const int *columns, const int *rows, const ushort4 *look,
                          unsigned char *picture, int grid_width, int width, int height) {
    each(shape, begin, end, blend, frame, class_map, columns, rows, look, picture, grid_width, width, height);
}
"""


def compiled_functions() -> Mapping[str, FakeFunction]:
    """The kernels as functions of a `FakeCuda`; skips the test where there is no C++ compiler."""
    _library()
    return {
        "fit": FakeFunction(partial(_run_all, "fit"), frozenset({3})),
        "blend": FakeFunction(partial(_run_all, "blend"), frozenset({5})),
    }


@dataclass(frozen=True, slots=True)
class Launch:
    """One call of a kernel."""

    name: str
    grid: Grid
    block: Grid
    arguments: Arguments

    @property
    def threads(self) -> int:
        """How many there are."""
        return int(np.prod(self.grid)) * int(np.prod(self.block))


def _run_all(name: str, cuda: FakeCuda, grid: Grid, block: Grid, arguments: Arguments) -> None:
    launch = Launch(name, grid, block, arguments)
    run(cuda, launch, range(launch.threads))


def run(cuda: FakeCuda, launch: Launch, threads: range) -> None:
    """Run some of a kernel's threads over the device's memory: what it touches has to be there."""
    values = [int(value) for value in launch.arguments]
    sizes = _fit_sizes(cuda, values) if launch.name == "fit" else _blend_sizes(cuda, values)
    count = len(sizes)
    pointers = [
        ctypes.c_void_p(cuda.bytes_at(address, size).ctypes.data) if size else ctypes.c_void_p()
        for address, size in zip(values[:count], sizes, strict=True)
    ]
    span = ctypes.c_size_t(threads.start), ctypes.c_size_t(threads.stop)
    shape = (ctypes.c_uint * 6)(*launch.grid, *launch.block)
    numbers = [ctypes.c_int(value) for value in values[count:]]
    getattr(_library(), f"run_{launch.name}")(shape, *span, *pointers, *numbers)
    assert _library().misaligned_so_far() == 0, (
        "a word is read or written that does not start at a multiple of its size"
    )


def _fit_sizes(cuda: FakeCuda, values: Sequence[int]) -> tuple[int, ...]:
    _, columns, rows, _, frame_width, width, height = values
    assert (_table(cuda, columns, 4 * width).reshape(-1, 4)[:, :2] < frame_width).all()
    frame_height = int(_table(cuda, rows, 4 * height).reshape(-1, 4)[:, :2].max()) + 1
    return frame_height * frame_width * 3, 16 * width, 16 * height, width * height * 3


def _blend_sizes(cuda: FakeCuda, values: Sequence[int]) -> tuple[int, ...]:
    _, _, columns, rows, _, _, grid_width, width, height = values
    assert (_table(cuda, columns, width) < grid_width).all()
    grid_height = int(_table(cuda, rows, height).max()) + 1
    return width * height * 3, grid_height * grid_width, 4 * width, 4 * height, 256 * 8, width * height * 3


def _table(cuda: FakeCuda, address: int, count: int) -> NDArray[np.int32]:
    return cuda.bytes_at(address, 4 * count).view(np.int32)


@cache
def _library() -> ctypes.CDLL:
    compiler = next((path for name in ("g++", "c++", "clang++") if (path := shutil.which(name))), None)
    if compiler is None:
        pytest.skip("compiling the kernels for the CPU needs a C++ compiler: apt-get install g++")
    with tempfile.TemporaryDirectory() as folder:
        shim, library = Path(folder, "shim.cpp"), Path(folder, "kernels.so")
        shim.write_text(SHIM)
        command = [compiler, "-std=c++14", "-O2", "-fno-strict-aliasing", "-fPIC", "-I", str(SOURCE.parent)]
        built = Path(folder, "kernels.o")
        subprocess.run([*command, "-fsanitize=alignment", "-c", str(shim), "-o", str(built)], check=True)
        subprocess.run([*command, "-shared", str(built), "-o", str(library)], check=True)
        return ctypes.CDLL(str(library))
