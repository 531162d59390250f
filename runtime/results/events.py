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
        after_ms: for how long the share has to be there, or gone, before that is told.

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


class Trigger:
    """A rule at work on one source.

    Attributes:
        active: the event has begun and has not ended.
    """

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.active = False
        self._since_ns: int | None = None

    def update(self, share: float | None, now_ns: int) -> Change | None:
        """Hear of a new share; returns what changes with it.

        Args:
            share: of the class now; None where nothing is known, which changes nothing.
            now_ns: the frame's time, monotonic.
        """
        if share is None:
            return None
        turns = share <= self.rule.end if self.active else share >= self.rule.above
        if not turns:
            self._since_ns = None
            return None
        self._since_ns = now_ns if self._since_ns is None else self._since_ns
        if now_ns - self._since_ns < self.rule.after_ms * 1e6:
            return None
        self.active, self._since_ns = not self.active, None
        return "started" if self.active else "ended"
