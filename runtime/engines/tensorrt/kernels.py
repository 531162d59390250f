"""`FrameKernels`: pictures before and after the network, on the device."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.engines.tensorrt.cuda import Address, Cuda, Grid, Memory, Stream
from vidseg.runtime.engines.tensorrt.tables import Look, blend_table, fit_table
from vidseg.runtime.geometry import Placement

PIXELS_PER_THREAD = 4
"""As in kernels.cu."""

BLOCK: Grid = (128, 1, 1)
"""Small enough that a 480x360 input makes several blocks for each multiprocessor of a large GPU (338 for 132), large
enough that the 16 blocks which one takes at a time fill it."""

MAX_TABLES = 64
"""On the device at a time, of 4 to 128 KiB each: two for each size of frame in use, and the looks."""

_COLUMN_BYTES = {"fit": 16, "blend": 4}


class FrameKernels:
    """Lays frames on the model's input and draws results over frames: what the CPU does, byte for byte.

    Tables for a size of frame are made when it is first met, uploaded in the order of the stream, and kept; the one
    that was not used for longest makes room for a new one, behind all that may still read it. That a recorded graph
    reads it is not known: do not record this work. Used by the thread that entered the context; a context manager.

    Args:
        cuda: the device, entered. Close the kernels before it is left.

    Raises:
        DeviceError, EngineError: see `Cuda`.
    """

    def __init__(self, cuda: Cuda) -> None:
        ptx = Path(__file__).with_name("kernels.ptx").read_bytes()
        self._fit = cuda.kernel(ptx, "fit", "PPPPiii")
        self._blend = cuda.kernel(ptx, "blend", "PPPPPPiii")
        self._tables = _Tables(cuda)

    def fit(self, stream: Stream, frame: Address, placement: Placement, input_: Address) -> None:
        """Scale (bilinear) and place a frame, as `Placement.input_from_frame` does.

        Args:
            stream: the work is put there.
            frame: (H, W, 3) uint8 BGR.
            placement: of a frame of this size.
            input_: (h, w, 3) uint8 BGR; written. Fastest at a multiple of 4.
        """
        table = self._tables.address(stream, ("fit", placement), lambda: fit_table(placement))
        width, height = placement.input_wh
        rows = table + width * _COLUMN_BYTES["fit"]
        grid = grid_of(placement.input_wh)
        self._fit.launch(stream, grid, BLOCK, frame, table, rows, input_, placement.frame_wh[0], width, height)

    def blend(
        self,
        stream: Stream,
        frame: Address,
        class_map: Address,
        grid_wh: tuple[int, int],
        placement: Placement,
        *,
        look: Look,
        picture: Address,
    ) -> None:
        """Draw a result over its frame, as `Overlay` does.

        Args:
            stream: the work is put there.
            frame: (H, W, 3) uint8 BGR. Fastest at a multiple of 4.
            class_map: (h, w) uint8, as the plan gives it, letterbox padding and all.
            grid_wh: size of the class map.
            placement: of the frame on the input.
            look: colours; made once, it is known by its identity.
            picture: (H, W, 3) uint8 BGR; written; not the frame itself. Fastest at a multiple of 4.
        """
        key = ("blend", placement, grid_wh)
        table = self._tables.address(stream, key, lambda: blend_table(placement, grid_wh))
        colors = self._tables.address(stream, look, lambda: look.table)
        width, height = placement.frame_wh
        rows = table + width * _COLUMN_BYTES["blend"]
        arguments = (frame, class_map, table, rows, colors, picture, grid_wh[0], width, height)
        self._blend.launch(stream, grid_of(placement.frame_wh), BLOCK, *arguments)

    def close(self) -> None:
        """Give the tables' memory back; nothing may be left to do with it. Idempotent."""
        self._tables.free()

    def __enter__(self) -> FrameKernels:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def grid_of(size_wh: tuple[int, int]) -> Grid:
    """How many blocks do all pixels of a picture."""
    return -(-size_wh[0] * size_wh[1] // (BLOCK[0] * PIXELS_PER_THREAD)), 1, 1


class _Tables:
    """The most recently used tables, on the device."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._tables: OrderedDict[Hashable, _Table] = OrderedDict()
        self._idle: list[_Table] = []  # whose last upload failed

    def address(self, stream: Stream, key: Hashable, make: Callable[[], NDArray[Any]]) -> Address:
        """Where the table lies that a key stands for, for work in a stream; it is made where there is none."""
        table = self._tables.get(key)
        if table is not None:
            self._tables.move_to_end(key)
            table.enter(stream)
            return table.address
        values = make()
        if len(self._tables) + len(self._idle) < MAX_TABLES:
            table = _Table(self._cuda)
        else:
            table = self._idle.pop() if self._idle else self._tables.popitem(last=False)[1]
        self._idle.append(table)
        table.write(values, stream)
        self._tables[key] = self._idle.pop()
        return table.address

    def free(self) -> None:
        """Idempotent."""
        for table in (*self._tables.values(), *self._idle):
            table.free()
        self._tables.clear()
        self._idle.clear()


class _Table:
    """Memory of the device for one table after another, and the pinned memory that it is filled from."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._memory: Memory | None = None
        self._staging: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._written = cuda.event()
        self._streams: dict[int, Stream] = {}  # by handle: their work from here on finds the table

    @property
    def address(self) -> Address:
        """On the device; 0 before anything was written."""
        return self._memory.address if self._memory else 0

    def enter(self, stream: Stream) -> None:
        """Order a stream's work behind the upload."""
        if stream.handle not in self._streams:
            stream.wait(self._written)
            self._streams[stream.handle] = stream

    def write(self, values: NDArray[Any], stream: Stream) -> None:
        """Upload, behind all that reads what was there."""
        size = values.nbytes
        if self._memory is None or self._memory.size < size:
            self._grow(size)
        self._written.synchronize()  # the staging memory has been read
        for reader in self._streams.values():
            read = self._cuda.event()
            read.record(reader)
            stream.wait(read)
        self._staging[:size] = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        self._cuda.upload(self.address, self._staging[:size], stream)
        self._written.record(stream)
        self._streams = {stream.handle: stream}

    def _grow(self, size: int) -> None:
        for reader in self._streams.values():
            reader.synchronize()
        self.free()
        room = 1 << max(12, (size - 1).bit_length())
        self._staging = self._cuda.pinned((room,), np.uint8)
        self._memory = self._cuda.allocate(room)

    def free(self) -> None:
        """Idempotent."""
        memory, self._memory = self._memory, None
        self._streams = {}
        self._staging = np.empty(0, np.uint8)
        if memory is not None:
            memory.free()
