"""The frames that a model is calibrated on and verified with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidseg.calibration.candidates import CandidateFrames
from vidseg.calibration.frame_filter import FrameCounts
from vidseg.calibration.frame_store import StoredFrames
from vidseg.calibration.selection import FrameFeatures, Selection, SelectionOptions, select
from vidseg.runtime.errors import ConfigurationError
from vidseg.runtime.frame import Image


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationFrames:
    """The chosen frames, each set in order of time. They can be read while the store is open.

    Attributes:
        source: URI.
        counts: what became of all its frames.
        calibration: to calibrate on.
        verification: to verify with; none where the caller has labelled pictures for that.
        calibration_numbers, verification_numbers: of each in the source, from 0.
        gap: frames of the source between a frame of one set and a frame of the other, at least.
        excluded: how many candidates were left out for being nearly the same as a picture that the result is judged on.
        calibration_sha256, verification_sha256: of all pixels in order, as the model sees them.
    """

    source: str
    counts: FrameCounts
    calibration: StoredFrames
    verification: StoredFrames
    calibration_numbers: tuple[int, ...]
    verification_numbers: tuple[int, ...]
    gap: int
    excluded: int
    calibration_sha256: str
    verification_sha256: str


def choose_frames(
    candidates: CandidateFrames,
    features_of: Callable[[Image], FrameFeatures],
    options: SelectionOptions,
    *,
    excluded: NDArray[np.uint8] | None = None,
    progress: Callable[[int], None] = lambda _done: None,
) -> CalibrationFrames:
    """Choose frames to calibrate on and to verify with; see `selection.select`.

    Args:
        candidates: see `candidates.read_candidates`.
        features_of: what the model makes of a frame as it lies on the input, (h, w, 3) uint8.
        options: how many.
        excluded: thumbnails of labelled pictures that the result is judged on, (m, 24, 32) uint8.
        progress: called with the number of candidates whose features are there.

    Raises:
        ConfigurationError: there are too few different frames; said before the model runs where that is clear.
    """
    fewest = options.min_calibration + (options.min_verification if options.verification else 0)
    if len(candidates.store) < fewest:
        raise _too_few(candidates, options, None, candidates.counts.advice())
    features = []
    for number, image in enumerate(candidates.store, 1):
        features.append(features_of(image))
        progress(number)
    chosen = select(features, candidates.thumbnails, options, excluded)
    is_short = options.verification and len(chosen.verification) < options.min_verification
    if is_short or len(chosen.calibration) < options.min_calibration:
        advice = candidates.counts.advice() if excluded is None else "Give other frames than the labelled ones."
        raise _too_few(candidates, options, chosen, advice)
    calibration = StoredFrames(candidates.store, chosen.calibration)
    verification = StoredFrames(candidates.store, chosen.verification)
    numbers = [tuple(candidates.numbers[row] for row in rows) for rows in (chosen.calibration, chosen.verification)]
    return CalibrationFrames(
        source=candidates.source,
        counts=candidates.counts,
        calibration=calibration,
        verification=verification,
        calibration_numbers=numbers[0],
        verification_numbers=numbers[1],
        gap=_gap(numbers[0], numbers[1]),
        excluded=chosen.excluded,
        calibration_sha256=calibration.sha256(),
        verification_sha256=verification.sha256(),
    )


def _gap(numbers: tuple[int, ...], others: tuple[int, ...]) -> int:
    if not numbers or not others:
        return 0
    return int(np.abs(np.subtract.outer(numbers, others)).min()) - 1


def _too_few(
    candidates: CandidateFrames, options: SelectionOptions, chosen: Selection | None, advice: str
) -> ConfigurationError:
    needed = f"{options.min_calibration} needed"
    got = f"{candidates.counts}"
    if options.verification:
        needed = f"{options.min_calibration} and {options.min_verification} to verify needed"
    if chosen is not None:
        got += f", {len(chosen.calibration)} to calibrate on and {len(chosen.verification)} to verify with"
    what = f"{candidates.source}: too few different frames to calibrate on"
    return ConfigurationError(what, f"{got}; {needed}", advice)
