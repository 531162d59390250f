"""When a source that is gone is tried again."""

from __future__ import annotations

import random
from typing import Literal, TypeAlias

from vidseg.runtime.errors import SourceError, SourceRefusedError

Retry: TypeAlias = Literal["always", "once_seen", "never"]
"""Whether a live source that cannot be opened, or is lost, is tried again: always; only after it has given a frame, so
that a wrong name is an error, unless there are other live sources; or never, because nothing goes without it."""

PROBE_S = 1.0
"""Between two tries at a source that is away: a camera that comes back is seen within two seconds."""

LEAST_REFUSED_S = 0.5
MOST_REFUSED_S = 30.0
"""Between two tries at a source that says no: many cameras lock out those who ask too often."""


class Backoff:
    """How long to wait before the next try.

    A source that is away is probed every second. One that refuses is asked less and less often, up to every 30 s, with
    jitter: up to half of it less, so that many clients do not ask at once (Brooker, Exponential backoff and jitter,
    2015).

    Args:
        seed: of the jitter.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(seed)
        self._refusals = 0

    def wait_s(self, error: SourceError) -> float:
        """The time until the next try, after this failure."""
        if not isinstance(error, SourceRefusedError):
            self._refusals = 0
            return PROBE_S
        most_s: float = min(LEAST_REFUSED_S * 2**self._refusals, MOST_REFUSED_S)
        self._refusals = min(self._refusals + 1, 16)
        return most_s * self._random.uniform(0.5, 1.0) if most_s > LEAST_REFUSED_S else most_s

    def works(self) -> None:
        """The source gives frames."""
        self._refusals = 0
