"""What the device makes of a picture is what the CPU makes of it: the network sees the same frame, a person the same
overlay."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fake_cuda import FakeCuda
from tests.fake_streams import Arguments, FakeFunction, FakeKernel
from tests.runtime.engines.tensorrt.compiled_kernels import SOURCE, Launch, compiled_functions, run
from tests.runtime.engines.tensorrt.kernel_bench import (
    CLASSES,
    TOLERANCE,
    Bench,
    Size,
    class_map_of,
    largest_difference,
    noise_of,
)
from vidseg.runtime.engines.tensorrt.cuda import Grid
from vidseg.runtime.engines.tensorrt.kernels import FrameKernels
from vidseg.runtime.engines.tensorrt.tables import look_of
from vidseg.runtime.frame import ClassMap, Frame, Image, Segmentation
from vidseg.runtime.geometry import Fit, Placement, placement_of
from vidseg.runtime.manifest import ClassSpec
from vidseg.runtime.overlay import Overlay, OverlayStyle

sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))
fits = st.sampled_from(["stretch", "letterbox", "crop"])
offsets = st.integers(0, 5)
seeds = st.integers(0, 999)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with FakeCuda(functions=compiled_functions()) as cuda, FrameKernels(cuda) as kernels:
        yield Bench(cuda, kernels, cuda.stream())


def _drawn(image: Image, class_map: ClassMap, placement: Placement, style: OverlayStyle) -> Image:
    """By the CPU."""
    affine = placement.grid_from_frame((class_map.shape[1], class_map.shape[0]))
    visible = placement.without_padding(class_map.copy())
    frame = Frame("s", 0, 0, 0, 0, "pts", image.copy())
    return Overlay(CLASSES, style).draw(Segmentation(frame, visible, affine, 0.0))


@given(frame_wh=sizes, input_wh=sizes, fit=fits, offsets=st.tuples(offsets, offsets), seed=seeds)
def test_the_network_sees_what_the_cpu_would_have_shown_it(
    bench: Bench, *, frame_wh: Size, input_wh: Size, fit: Fit, offsets: Size, seed: int
) -> None:
    placement, image = placement_of(frame_wh, input_wh, fit), noise_of(frame_wh, seed)
    fitted = bench.fit(image, placement, offsets)
    assert largest_difference(fitted, placement.input_from_frame(image)) <= TOLERANCE


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
@pytest.mark.parametrize(
    ("frame_wh", "input_wh"),
    [
        ((3840, 2160), (480, 360)),
        ((1280, 720), (480, 360)),
        ((1919, 1081), (513, 511)),
        ((640, 480), (1024, 512)),
        ((2048, 1024), (1024, 512)),
        ((480, 360), (480, 360)),
        ((1, 2160), (64, 64)),
        ((3840, 1), (64, 64)),
        ((1, 1), (33, 17)),
        ((64, 64), (1, 1)),
    ],
)
def test_a_camera_of_any_size_fits(bench: Bench, frame_wh: Size, input_wh: Size, fit: Fit) -> None:
    placement, image = placement_of(frame_wh, input_wh, fit), noise_of(frame_wh)
    assert largest_difference(bench.fit(image, placement), placement.input_from_frame(image)) <= TOLERANCE


@given(
    frame_wh=sizes,
    input_wh=sizes,
    grid_wh=sizes,
    fit=fits,
    style=st.builds(
        OverlayStyle,
        alpha=st.floats(0, 1),
        legend=st.just(False),
        view=st.sampled_from(["over", "mask"]),
        hidden=st.sampled_from([(), ("class 1",), ("class 0", "class 29")]),
    ),
    offsets=st.tuples(offsets, offsets),
    seed=seeds,
)
def test_a_person_sees_what_the_cpu_would_have_drawn(
    bench: Bench,
    *,
    frame_wh: Size,
    input_wh: Size,
    grid_wh: Size,
    fit: Fit,
    style: OverlayStyle,
    offsets: Size,
    seed: int,
) -> None:
    placement = placement_of(frame_wh, input_wh, fit)
    image, class_map = noise_of(frame_wh, seed), class_map_of(grid_wh, seed)
    blended = bench.blend(image, class_map, placement, look_of(CLASSES, style), offsets)
    assert np.array_equal(blended, _drawn(image, class_map, placement, style))


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
@pytest.mark.parametrize(
    ("frame_wh", "grid_wh"),
    [((3840, 2160), (480, 360)), ((1279, 719), (480, 360)), ((640, 480), (1024, 512)), ((1, 1), (33, 17))],
)
def test_a_result_is_drawn_at_any_size(bench: Bench, frame_wh: Size, grid_wh: Size, fit: Fit) -> None:
    style = OverlayStyle(legend=False, colors="distinct")
    placement, image, class_map = placement_of(frame_wh, grid_wh, fit), noise_of(frame_wh), class_map_of(grid_wh, 1)
    blended = bench.blend(image, class_map, placement, look_of(CLASSES, style))
    assert np.array_equal(blended, _drawn(image, class_map, placement, style))


def test_every_level_and_color_is_rounded_as_stated(bench: Bench) -> None:
    levels = np.arange(256, dtype=np.uint8)
    classes = tuple(ClassSpec(name=str(level), color_rgb=(level, level, level)) for level in range(255))
    image = np.ascontiguousarray(np.broadcast_to(levels[:, None, None], (256, 255, 3)))
    class_map = np.tile(levels[:255], (256, 1))
    placement = placement_of((255, 256), (255, 256), "stretch")
    for share in (*range(0, 257, 16), 1, 127, 255):
        expected = (levels[:, None].astype(int) * (256 - share) + levels[None, :255].astype(int) * share + 128) >> 8
        look = look_of(classes, OverlayStyle(alpha=share / 256))
        assert np.array_equal(bench.blend(image, class_map, placement, look), np.dstack([expected] * 3)), share


@settings(max_examples=30)
@given(st.tuples(st.integers(1, 30), st.integers(1, 30)), st.integers(0, 3), st.sampled_from(["fit", "blend"]))
def test_each_pixel_is_written_by_one_thread(size_wh: Size, offset: int, name: str) -> None:
    # A pixel that is left by all, or written by two, would flicker. A write shows against 0 or against 255.
    writes = []
    place = {"fit": 3, "blend": 5}[name]

    def thread_by_thread(cuda: FakeCuda, grid: Grid, block: Grid, arguments: Arguments) -> None:
        target = cuda.bytes_at(int(arguments[place]), size_wh[0] * size_wh[1] * 3)
        launch = Launch(name, grid, block, arguments)
        for thread in range(launch.threads):
            touched = np.zeros(target.size, bool)
            for background in (0, 255):
                target[:] = background
                run(cuda, launch, range(thread, thread + 1))
                touched |= target != background
            writes.append(touched)

    functions = {**compiled_functions(), name: FakeFunction(thread_by_thread, frozenset({place}))}
    with FakeCuda(functions=functions) as cuda, FrameKernels(cuda) as kernels:
        bench = Bench(cuda, kernels, cuda.stream())
        if name == "fit":
            bench.fit(noise_of((9, 9)), placement_of((9, 9), size_wh, "letterbox"), (0, offset))
        else:
            placement = placement_of(size_wh, (8, 8), "crop")
            look = look_of(CLASSES, OverlayStyle())
            bench.blend(noise_of(size_wh), class_map_of((8, 8), 0), placement, look, (0, offset))
    assert (np.sum(writes, axis=0) == 1).all()


def test_the_shipped_code_is_that_of_the_source() -> None:
    # A change of kernels.cu that is not in kernels.ptx is tested here and runs nowhere.
    made_of = hashlib.sha256(SOURCE.read_bytes()).hexdigest()
    first_line = SOURCE.with_suffix(".ptx").read_text().splitlines()[0]
    assert first_line == f"// Made by scripts/ptx from kernels.cu, SHA-256 {made_of}", "run scripts/ptx"


def test_the_shipped_code_runs_on_old_drivers_and_takes_what_it_is_given() -> None:
    # PTX 7.8 is read by drivers from 520 on, CUDA 11.8's; an argument of another width shifts all behind it.
    ptx = SOURCE.with_suffix(".ptx").read_text()
    assert ".version 7.8\n.target sm_50\n.address_size 64\n" in ptx
    entries = dict(re.findall(r"\.visible \.entry (\w+)\(\n(.*?)\n\)", ptx, re.DOTALL))
    signatures = {}

    class Recorder(FakeCuda):
        def kernel(self, ptx: bytes, name: str, signature: str) -> FakeKernel:
            signatures[name] = signature
            return super().kernel(ptx, name, signature)

    with Recorder(functions=compiled_functions()) as cuda:
        FrameKernels(cuda)
    assert signatures == {
        name: "".join({"u64": "P", "u32": "i"}[kind] for kind in re.findall(r"\.param \.(\w+) ", parameters))
        for name, parameters in entries.items()
    }
