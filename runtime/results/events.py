"""Events with hysteresis: that there is much of a class somewhere, told once, and once more when it is over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from vidseg.runtime.errors import ConfigurationError

Change: TypeAlias = Literal["started", "ended"]


@dataclass(frozen=True, slots=True)
class Rule:
    """When an event begins and ends.

    Attributes:
        name: of the event.
        class_name: of the class that counts.
        zone: name of the zone in which; None for the whole picture.
        above: the share that begins it, 0..1.
        below: the share that ends it; less than `above`, so that noise does not end it; None: 0.8 of it.
        after_ms: for how long the share has to be there, or gone, before that is told. What is not seen for longer
            than that, and than a second, counts from the start: for a source with fewer pictures, use twice the time
            between two of them, or 0.

    Raises:
        ConfigurationError: a share that is none, or `below` is not less than `above`.
    """

    name: str
    class_name: str
    above: float
    below: float | None = None
    zone: str | None = None
    after_ms: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.above <= 1 or not 0 <= self.end < self.above or not 0 <= self.after_ms < 1e9:
            got = f"above {self.above:g}, below {self.end:g}, after_ms {self.after_ms:g}"
            raise ConfigurationError(
                f"event {self.name!r} makes no sense", got, "above is a share from 0 to 1, below is less than above."
            )

    @property
    def end(self) -> float:
        """The share that ends it."""
        return 0.8 * self.above if self.below is None else self.below


GAP_NS = 1_000_000_000
"""Nothing is known of what lies between two pictures that are further apart, and further than `Rule.after_ms`."""


class Trigger:
    """A rule at work on one source.

    A gap, or a new connection, begins the time of `Rule.after_ms` anew. An event that is active then stays active until
    a picture shows otherwise: nobody knows that it is over.

    Attributes:
        active: the event has begun and has not ended.
    """

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.active = False
        self._since_ns: int | None = None
        self._seen: tuple[int, int] | None = None  # epoch and time of the last share that was known

    def update(self, share: float | None, now_ns: int, epoch: int = 0) -> Change | None:
        """Hear of a new share; returns what changes with it.

        Args:
            share: of the class now; None where nothing is known, which changes nothing.
            now_ns: the frame's time, monotonic.
            epoch: number of the source's connection.
        """
        if share is None:
            return None
        if not self._continues(now_ns, epoch):
            self._since_ns = None
        self._seen = (epoch, now_ns)
        turns = share <= self.rule.end if self.active else share >= self.rule.above
        if not turns:
            self._since_ns = None
            return None
        self._since_ns = now_ns if self._since_ns is None else self._since_ns
        if now_ns - self._since_ns < self.rule.after_ms * 1e6:
            return None
        self.active, self._since_ns = not self.active, None
        return "started" if self.active else "ended"

    def _continues(self, now_ns: int, epoch: int) -> bool:
        if self._seen is None:
            return False
        seen_epoch, seen_ns = self._seen
        return epoch == seen_epoch and now_ns - seen_ns <= max(self.rule.after_ms * 1e6, GAP_NS)
