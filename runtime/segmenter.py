"""`Segmenter`: one picture at a time, without a pipeline."""

from __future__ import annotations

from types import TracebackType

from vidseg.runtime.clock import Clock, SystemClock
from vidseg.runtime.decoding import Prediction
from vidseg.runtime.engines import Engine, predict
from vidseg.runtime.frame import Frame, Image, Segmentation
from vidseg.runtime.geometry import Fit, Placement, placement_of


class Segmenter:
    """A callable from a picture to its result, in the caller's thread. A context manager that closes its engine.

    Args:
        engine: a loaded model; the segmenter owns it.
        fit: how a picture is laid on the model's input, as the bundle says.
        clock: for the age of results.
    """

    def __init__(self, engine: Engine, fit: Fit = "stretch", clock: Clock | None = None) -> None:
        self._engine = engine
        self._fit: Fit = fit
        self._clock = clock or SystemClock()
        self._index = 0

    def __call__(self, picture: Image | Frame) -> Segmentation:
        """Segment a picture of any size, (H, W, 3) uint8 BGR; it becomes read-only.

        Raises:
            EngineError: inference failed.
        """
        frame = picture if isinstance(picture, Frame) else self._frame_of(picture)
        _, height, width, _ = self._engine.input_shape_nhwc
        placement = placement_of((frame.image.shape[1], frame.image.shape[0]), (width, height), self._fit)
        prediction = predict(self._engine, placement.input_from_frame(frame.image))
        return segmentation_of(frame, placement, prediction, self._clock)

    def close(self) -> None:
        """Close the engine. Idempotent."""
        self._engine.close()

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _frame_of(self, image: Image) -> Frame:
        index = self._index
        self._index += 1
        return Frame("picture", 0, index, self._clock.now_ns(), self._clock.wall_ns(), "wall", image)


def segmentation_of(
    frame: Frame, placement: Placement, prediction: Prediction, clock: Clock, origin_xy: tuple[int, int] = (0, 0)
) -> Segmentation:
    """Put a prediction for a model's whole input into the terms of the frame, without padding.

    Args:
        frame: what was looked at.
        placement: of the frame, or of a region of it.
        prediction: what the model says.
        clock: for the result's age.
        origin_xy: where that region begins on the frame, in pixels.
    """
    height, width = prediction.class_map.shape
    confidence = prediction.confidence
    affine = placement.grid_from_frame((width, height))
    affine[:, 2] -= affine[:, :2] @ origin_xy
    return Segmentation(
        frame,
        placement.without_padding(prediction.class_map),
        affine,
        (clock.now_ns() - frame.captured_ns) / 1e6,
        None if confidence is None else placement.without_padding(confidence),
        blended=prediction.blended,
    )
