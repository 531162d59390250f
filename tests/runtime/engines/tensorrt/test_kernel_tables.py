"""A table that is overwritten, freed or never there while the device reads it bends every picture of a camera."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.fake_cuda import FakeCuda
from tests.fake_streams import RuleBroken
from tests.runtime.engines.tensorrt.compiled_kernels import compiled_functions
from tests.runtime.engines.tensorrt.kernel_bench import (
    CLASSES,
    TOLERANCE,
    Bench,
    Size,
    class_map_of,
    largest_difference,
    noise_of,
)
from vidseg.runtime.engines.tensorrt.cuda import Address, Memory, Stream
from vidseg.runtime.engines.tensorrt.kernels import MAX_TABLES, FrameKernels
from vidseg.runtime.engines.tensorrt.tables import look_of
from vidseg.runtime.errors import DeviceError, EngineError
from vidseg.runtime.geometry import placement_of
from vidseg.runtime.overlay import OverlayStyle


def test_tables_go_to_the_device_once() -> None:
    look = look_of(CLASSES, OverlayStyle())
    with FakeCuda(functions=compiled_functions()) as cuda, FrameKernels(cuda) as kernels:
        bench = Bench(cuda, kernels, cuda.stream())
        frame, class_map = bench.upload(noise_of((31, 17))), bench.upload(class_map_of((8, 8), 0))
        input_, picture = cuda.allocate(8 * 8 * 3), cuda.allocate(31 * 17 * 3)
        works = []
        for _ in range(3):
            before = cuda.works
            placement = placement_of((31, 17), (8, 8), "letterbox")
            kernels.fit(bench.stream, frame.address, placement, input_.address)
            kernels.blend(
                bench.stream, frame.address, class_map.address, (8, 8), placement, look=look, picture=picture.address
            )
            works.append(cuda.works - before)
        bench.stream.synchronize()
        for memory in (frame, class_map, input_, picture):
            memory.free()
    assert works == [3 + 2, 2, 2]


def _fit_many_sizes(bench: Bench, streams: Sequence[Stream]) -> None:
    rng = np.random.default_rng(0)
    image = noise_of((96, 2 * MAX_TABLES))
    pending = []
    for _ in range(3 * MAX_TABLES):
        seen = image[: 5 if rng.random() < 0.2 else rng.integers(1, len(image) + 1)]
        placement = placement_of((96, len(seen)), (16, 12), "letterbox")
        frame, input_ = bench.upload(seen), bench.cuda.allocate(16 * 12 * 3)
        bench.stream.synchronize()
        fitted = bench.cuda.pinned((12, 16, 3), np.uint8)
        stream = streams[int(rng.integers(2))]
        bench.kernels.fit(stream, frame.address, placement, input_.address)
        bench.cuda.download(fitted, input_.address, stream)
        pending.append((fitted, placement.input_from_frame(seen), frame, input_))
    for stream in streams:
        stream.synchronize()
    for fitted, expected, frame, input_ in pending:
        assert largest_difference(fitted, expected) <= TOLERANCE
        frame.free()
        input_.free()


def test_cameras_of_many_sizes_share_the_tables_and_no_memory_is_lost() -> None:
    # The fake device works late and knows what is ordered behind what: a table that is read before it was uploaded, or
    # overwritten while another stream may still read it, fails here.
    with FakeCuda(functions=compiled_functions()) as cuda, FrameKernels(cuda) as kernels:
        _fit_many_sizes(Bench(cuda, kernels, cuda.stream()), [cuda.stream(), cuda.stream()])
        free, total = cuda.free_memory()
        assert total - free == MAX_TABLES * 4096


def _fit_without_waiting(bench: Bench, stream: Stream, size_wh: Size) -> list[Memory]:
    """The memory that is in use until somebody waits."""
    frame, input_ = bench.upload(noise_of((4, 4))), bench.cuda.allocate(size_wh[0] * size_wh[1] * 3)
    bench.stream.synchronize()
    bench.kernels.fit(stream, frame.address, placement_of((4, 4), size_wh, "stretch"), input_.address)
    return [frame, input_]


@pytest.mark.parametrize("last_wh", [(9, 9), (300, 300)])  # in the memory of the first, or in more
def test_a_table_in_use_by_another_stream_is_not_overwritten(last_wh: Size) -> None:
    with FakeCuda(functions=compiled_functions()) as cuda, FrameKernels(cuda) as kernels:
        bench, one, other = Bench(cuda, kernels, cuda.stream()), cuda.stream(), cuda.stream()
        used = []
        for stream, size_wh in [(one, (8, 8)), (other, (8, 8)), *((one, (1, 9 + n)) for n in range(1, MAX_TABLES))]:
            used += _fit_without_waiting(bench, stream, size_wh)
        used += _fit_without_waiting(bench, one, last_wh)
        for stream in (one, other):
            stream.synchronize()
        for memory in used:
            memory.free()


def test_a_table_in_constant_use_is_kept() -> None:
    with FakeCuda(functions=compiled_functions()) as cuda, FrameKernels(cuda) as kernels:
        bench = Bench(cuda, kernels, cuda.stream())
        used, added = [], []
        for number in range(MAX_TABLES + 5):
            used += _fit_without_waiting(bench, bench.stream, (2, 50 + number))
            before = cuda.works
            used += _fit_without_waiting(bench, bench.stream, (3, 3))
            added.append(cuda.works - before)
        bench.stream.synchronize()
        for memory in used:
            memory.free()
    assert added == [3] + [2] * (MAX_TABLES + 4)  # the frame, the table once, the kernel


def test_a_full_device_is_said_and_what_fits_goes_on() -> None:
    small, large = placement_of((8, 8), (8, 8), "stretch"), placement_of((8, 8), (640, 640), "stretch")
    with FakeCuda(1 << 13, functions=compiled_functions()) as cuda, FrameKernels(cuda) as kernels:
        bench = Bench(cuda, kernels, cuda.stream())
        image = noise_of((8, 8))
        assert np.array_equal(bench.fit(image, small), image)
        for _ in range(MAX_TABLES + 1):
            with pytest.raises(DeviceError, match="used up"):
                kernels.fit(bench.stream, 0, large, 0)
        assert np.array_equal(bench.fit(image, small), image)
        kernels.close()  # once more at the end


def test_an_upload_that_fails_loses_no_memory_and_is_done_again() -> None:
    class LooseCable(FakeCuda):
        broken = False

        def upload(self, memory: Address, values: NDArray[Any], stream: Stream) -> None:
            if self.broken:
                raise EngineError("CUDA failed", "a loose cable")
            super().upload(memory, values, stream)

    placement, image = placement_of((8, 8), (4, 4), "stretch"), noise_of((8, 8))
    cable = LooseCable(functions=compiled_functions())
    with cable as cuda, FrameKernels(cuda) as kernels:
        bench = Bench(cuda, kernels, cuda.stream())
        frame = bench.upload(image)
        cable.broken = True
        with pytest.raises(EngineError, match="loose cable"):
            kernels.fit(bench.stream, frame.address, placement, frame.address)
        cable.broken = False
        assert np.array_equal(bench.fit(image, placement), placement.input_from_frame(image))
        frame.free()


def test_what_is_not_closed_is_noticed() -> None:
    with pytest.raises(RuleBroken, match="never freed"), FakeCuda(functions=compiled_functions()) as cuda:
        Bench(cuda, FrameKernels(cuda), cuda.stream()).fit(noise_of((4, 4)), placement_of((4, 4), (2, 2), "stretch"))
