"""What travels through the pipeline: a frame on the way in, a segmentation on the way out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Image: TypeAlias = NDArray[np.uint8]  # (H, W, 3), BGR
ClassMap: TypeAlias = NDArray[np.uint8]  # (H, W) of class ids 0..254; 255 is unlabelled or unknown

UNKNOWN = 255
"""The class id of what is unlabelled or unknown, in labels, results and pictures alike."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of a source, upright, with the times that tell its age.

    Attributes:
        source: name of the source, without credentials.
        epoch: number of the connection, from 0; grows when a source reconnects.
        index: number of the frame within its epoch, from 0. A gap is a frame that was dropped.
        captured_ns: monotonic time at which the frame was taken, or decoded where the source cannot say.
        stamp_ns: the source's own time of the frame, in nanoseconds of `stamp_clock`.
        stamp_clock: `pts` (since the start of a file), `ros`, `driver` or `wall`.
        image: (H, W, 3) uint8 BGR. Made read-only here: every stage sees the same pixels.
    """

    source: str
    epoch: int
    index: int
    captured_ns: int
    stamp_ns: int
    stamp_clock: str
    image: Image

    def __post_init__(self) -> None:
        self.image.flags.writeable = False


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """The classes of one frame, as a sink gets them.

    Attributes:
        frame: the frame that was segmented.
        class_map: (h, w) uint8 on the model's output grid, letterbox padding already cropped. Read-only.
        grid_from_frame: (2, 3) float64; takes a frame's pixel (x, y, 1) to a pixel of `class_map`. Pixel centres
            lie at whole numbers.
        age_ms: from `frame.captured_ns` to the hand-over, in milliseconds.
        confidence: (h, w) uint8 on the same grid, 0..255: how probable the class is, or None where nobody asked.
            Read-only.
        late: older than the deadline at the hand-over: `class_map` is 255 all over.
        late_class_map: what `class_map` would have been; None unless `late`.
        blended: (H, W, 3) uint8 BGR, the frame with the colours of `class_map` over it, where the engine drew it. None
            elsewhere, and where `late`. Read-only.
    """

    frame: Frame
    class_map: ClassMap
    grid_from_frame: NDArray[np.float64]
    age_ms: float
    confidence: NDArray[np.uint8] | None = None
    late: bool = False
    late_class_map: ClassMap | None = None
    blended: Image | None = None

    def __post_init__(self) -> None:
        for array in (self.class_map, self.confidence, self.late_class_map, self.blended):
            if array is not None:
                array.flags.writeable = False
        self.grid_from_frame.flags.writeable = False

    def at_frame_size(self) -> ClassMap:
        """The class map at the frame's size, (H, W) uint8, nearest neighbour; 255 where the model did not look."""
        height, width = self.frame.image.shape[:2]
        grid_height, grid_width = self.class_map.shape
        (scale_x, _, shift_x), (_, scale_y, shift_y) = self.grid_from_frame
        columns = np.rint(np.arange(width) * scale_x + shift_x).astype(np.intp)
        rows = np.rint(np.arange(height) * scale_y + shift_y).astype(np.intp)
        known_columns = (columns >= 0) & (columns < grid_width)
        known_rows = (rows >= 0) & (rows < grid_height)
        nearest: ClassMap = self.class_map[rows.clip(0, grid_height - 1)][:, columns.clip(0, grid_width - 1)]
        nearest[~known_rows] = UNKNOWN
        nearest[:, ~known_columns] = UNKNOWN
        return nearest


SourceState: TypeAlias = Literal["opening", "silent", "lost", "refused", "paused", "removed"]
"""What a source does that gives no frames: it has not given one yet, it gave some, it has failed, it says no, it was
told to wait, or it is not one of the run's any more. The last is told once: what is kept of a source can go then."""


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """What a sink gets at a fixed interval while a live source gives nothing.

    Attributes:
        source: its name.
        state: see `SourceState`.
        since_ns: monotonic time of its last frame or of its loss, or of the start of the run.
    """

    source: str
    state: SourceState
    since_ns: int
