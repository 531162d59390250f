"""How a pipeline treats frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vidseg.runtime.errors import UsageError
from vidseg.runtime.geometry import Fit
from vidseg.runtime.pipeline.retry import Retry
from vidseg.runtime.view import View


@dataclass(frozen=True, slots=True)
class PipelineOptions:
    """How frames are treated.

    Attributes:
        fit: how a frame is laid on the model's input.
        every_frame: live sources wait in a queue instead of being replaced by newer frames.
        max_age_ms: with `every_frame`, frames older than that are discarded before inference.
        deadline_ms: a result older than that at a hand-over is late: its classes are all unknown; None for no limit.
        heartbeat_ms: how often sinks are told of a live source that gives nothing.
        retry: whether live sources that are lost are opened again.
        required: names of the sources that are not opened again, and whose loss ends the run at once.
        hang_s: inference that takes longer than this for a batch has hung, and the run ends; None for no limit.
        views: what of a source's pictures counts, by its name; all of them where it is not there.
    """

    fit: Fit = "stretch"
    every_frame: bool = False
    max_age_ms: float = 1000.0
    deadline_ms: float | None = None
    heartbeat_ms: float = 1000.0
    retry: Retry = "once_seen"
    required: frozenset[str] = frozenset()
    hang_s: float | None = 60.0
    views: Mapping[str, View] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.hang_s is not None and self.hang_s <= 0:
            raise UsageError("the time after which inference has hung is more than 0 s", f"{self.hang_s:g}")
        if self.heartbeat_ms <= 0 or self.max_age_ms <= 0 or (self.deadline_ms is not None and self.deadline_ms <= 0):
            got = f"max_age_ms={self.max_age_ms}, deadline_ms={self.deadline_ms}, heartbeat_ms={self.heartbeat_ms}"
            raise UsageError("times are more than 0 ms", got)
