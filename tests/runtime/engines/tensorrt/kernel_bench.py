"""A fake device with the compiled kernels, pictures for them, and what is around their results."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from tests.fake_cuda import FakeCuda
from vidseg.runtime.engines.tensorrt.cuda import Memory, Stream
from vidseg.runtime.engines.tensorrt.kernels import FrameKernels
from vidseg.runtime.engines.tensorrt.tables import Look
from vidseg.runtime.frame import ClassMap, Image
from vidseg.runtime.geometry import Placement
from vidseg.runtime.manifest import ClassSpec

Size: TypeAlias = tuple[int, int]

# OpenCV's own code for x86 was matched byte for byte; on ARM a vendor's may take its place, which rounds differently.
TOLERANCE = 0 if platform.machine() == "x86_64" else 1

CLASSES = tuple(
    ClassSpec(name=f"class {index}", color_rgb=(int(red), int(green), int(blue)))
    for index, (red, green, blue) in enumerate(np.random.default_rng(3).integers(0, 256, (30, 3)))
)


def noise_of(size_wh: Size, seed: int = 0) -> Image:
    """Noise and hard edges: neither hides a neighbour or a weight that is off by one."""
    rng = np.random.default_rng(seed)
    levels: Image = rng.integers(0, 256, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
    if seed % 3:
        return levels
    black_and_white: Image = ((levels > 127) * 255).astype(np.uint8)
    return black_and_white


def class_map_of(grid_wh: Size, seed: int) -> ClassMap:
    """Of classes that are there, that are not, and unknown."""
    rng = np.random.default_rng(seed)
    class_map: ClassMap = rng.choice([0, 1, 2, 29, 30, 254, 255], (grid_wh[1], grid_wh[0])).astype(np.uint8)
    return class_map


def largest_difference(first: Image, second: Image) -> int:
    """Of two pictures, in grey levels."""
    return int(np.abs(first.astype(int) - second).max())


CANARY = 0x5A


@dataclass
class Bench:
    """A device with the kernels, and pictures that are brought there and back."""

    cuda: FakeCuda
    kernels: FrameKernels
    stream: Stream

    def upload(self, values: Image | ClassMap, offset: int = 0) -> Memory:
        """On the device, `offset` bytes behind a word's start."""
        memory = self.cuda.allocate(offset + max(values.size, 1))
        staged = self.cuda.pinned((values.size,), np.uint8)
        staged[:] = values.reshape(-1)
        self.cuda.upload(memory.address + offset, staged, self.stream)
        return memory

    def download(self, memory: Memory, size_wh: Size, offset: int) -> Image:
        """Wait for a picture whose memory held nothing but canaries, and see that those around it live."""
        staged = self.cuda.pinned((memory.size,), np.uint8)
        self.cuda.download(staged, memory.address, self.stream)
        self.stream.synchronize()
        width, height = size_wh
        end = offset + width * height * 3
        assert (staged[:offset] == CANARY).all()
        assert (staged[end:] == CANARY).all()
        picture: Image = staged[offset:end].reshape(height, width, 3).copy()
        return picture

    def target(self, size_wh: Size, offset: int) -> Memory:
        """Canaries where a picture will be written, and around."""
        return self.upload(np.full((size_wh[0] * size_wh[1] * 3 + offset + 16,), CANARY, np.uint8))

    def fit(self, image: Image, placement: Placement, offsets: Size = (0, 0)) -> Image:
        """The model's input by the kernel, between memory that lies anywhere."""
        frame, input_ = self.upload(image, offsets[0]), self.target(placement.input_wh, offsets[1])
        self.kernels.fit(self.stream, frame.address + offsets[0], placement, input_.address + offsets[1])
        fitted = self.download(input_, placement.input_wh, offsets[1])
        for memory in (frame, input_):
            memory.free()
        return fitted

    def blend(
        self, image: Image, class_map: ClassMap, placement: Placement, look: Look, offsets: Size = (0, 0)
    ) -> Image:
        """The picture by the kernel."""
        grid_wh = (class_map.shape[1], class_map.shape[0])
        frame, grid = self.upload(image, offsets[0]), self.upload(class_map, offsets[1])
        picture = self.target(placement.frame_wh, offsets[1])
        places = [
            memory.address + offset
            for memory, offset in zip((frame, grid, picture), (*offsets, offsets[1]), strict=True)
        ]
        self.kernels.blend(self.stream, places[0], places[1], grid_wh, placement, look=look, picture=places[2])
        blended = self.download(picture, placement.frame_wh, offsets[1])
        for memory in (frame, grid, picture):
            memory.free()
        return blended
