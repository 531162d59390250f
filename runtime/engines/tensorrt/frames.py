"""Frames of any size on the device: laid on the model's input there, and drawn over there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.engines import PlacedFrame
from vidseg.runtime.engines.tensorrt.buffers import Buffer
from vidseg.runtime.engines.tensorrt.cuda import Address, Cuda, Stream
from vidseg.runtime.engines.tensorrt.execution import TensorSpec
from vidseg.runtime.engines.tensorrt.kernels import FrameKernels
from vidseg.runtime.engines.tensorrt.tables import Look
from vidseg.runtime.frame import Image


class FrameMemory:
    """The frames of one batch in flight, and the pictures that are drawn of them.

    Memory grows with the largest frame that came, and stays: cameras of different sizes take turns.

    Args:
        cuda: the device.
        kernels: of it.
        look: how results are drawn; None: not here.
    """

    def __init__(self, cuda: Cuda, kernels: FrameKernels, look: Look | None) -> None:
        self._cuda = cuda
        self._kernels = kernels
        self._look = look
        self._frames: list[Buffer] = []
        self._pictures: list[Buffer] = []

    def fit(self, frames: Sequence[PlacedFrame], input_: Address, stream: Stream) -> None:
        """Upload frames and lay them on the inputs of a batch; nothing in flight may use this memory.

        Args:
            frames: of any sizes.
            input_: (n, h, w, 3) uint8 on the device.
            stream: where the work goes.

        Raises:
            OutOfMemoryError: they find no room.
        """
        self._make_room([frame.image.nbytes for frame in frames])
        for number, frame in enumerate(frames):
            buffer, size = self._frames[number], frame.image.nbytes
            np.copyto(buffer.host[:size].reshape(frame.image.shape), frame.image)
            buffer.upload(size, stream)
            width, height = frame.placement.input_wh
            self._kernels.fit(stream, buffer.address, frame.placement, input_ + number * width * height * 3)

    def draw(
        self, frames: Sequence[PlacedFrame], class_maps: Address, grid_wh: tuple[int, int], stream: Stream
    ) -> None:
        """Draw the results of the frames that were fitted last, and bring the pictures to the host.

        Args:
            frames: the same.
            class_maps: (n, h, w) uint8 on the device.
            grid_wh: of a class map.
            stream: where the work goes.
        """
        if self._look is None:
            return
        for number, frame in enumerate(frames):
            class_map = class_maps + number * grid_wh[0] * grid_wh[1]
            picture = self._pictures[number]
            address, look = self._frames[number].address, self._look
            self._kernels.blend(
                stream, address, class_map, grid_wh, frame.placement, look=look, picture=picture.address
            )
            picture.download(frame.image.nbytes, stream)

    def pictures(self, frames: Sequence[PlacedFrame]) -> NDArray[np.object_] | None:
        """Copies of the pictures, (H, W, 3) uint8 BGR each, once the stream is done; None where none is drawn."""
        if self._look is None:
            return None
        found = np.empty(len(frames), object)
        for number, frame in enumerate(frames):
            picture: Image = self._pictures[number].host[: frame.image.nbytes].reshape(frame.image.shape).copy()
            found[number] = picture
        return found

    def free(self) -> None:
        """Give the device's memory back; nothing may be left to do with it. Idempotent."""
        for buffer in (*self._frames, *self._pictures):
            buffer.free()
        self._frames.clear()
        self._pictures.clear()

    def _make_room(self, sizes: Sequence[int]) -> None:
        for buffers in (self._frames, *([self._pictures] if self._look else [])):
            for number, size in enumerate(sizes):
                if number == len(buffers):
                    buffers.append(Buffer(self._cuda, TensorSpec((size,), np.uint8)))
                elif buffers[number].host.size < size:
                    buffers[number].free()
                    buffers[number] = Buffer(self._cuda, TensorSpec((size,), np.uint8))
