"""What every part of a pipeline writes down, and the clock that it goes by."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vidseg.runtime.clock import Clock
from vidseg.runtime.frame import UNKNOWN, Frame, Segmentation
from vidseg.runtime.pipeline.ledger import Ledger
from vidseg.runtime.pipeline.statistics import Meters
from vidseg.runtime.pipeline.watchdog import Watchdog


@dataclass(frozen=True, slots=True)
class Books:
    """One set for all parts.

    Attributes:
        ledger: where every frame and result is.
        meters: times, rates and ages.
        clock: for all of these.
        watchdog: who is at what since when.
        deadline_ms: results older than that at a hand-over are late; None for no limit.
    """

    ledger: Ledger
    meters: Meters
    clock: Clock
    watchdog: Watchdog
    deadline_ms: float | None = None

    def age_ms(self, frame: Frame) -> float:
        """From the frame's capture to now."""
        return (self.clock.now_ns() - frame.captured_ns) / 1e6

    def stamped(self, segmentation: Segmentation) -> Segmentation:
        """The result with its age now; a late one says that nothing is known, and what would have been said."""
        age_ms = self.age_ms(segmentation.frame)
        if self.deadline_ms is None or age_ms <= self.deadline_ms:
            return replace(segmentation, age_ms=age_ms)
        confidence = segmentation.confidence
        return replace(
            segmentation,
            class_map=np.full_like(segmentation.class_map, UNKNOWN),
            age_ms=age_ms,
            confidence=None if confidence is None else np.zeros_like(confidence),
            late=True,
            late_class_map=segmentation.class_map,
            blended=None,
        )
