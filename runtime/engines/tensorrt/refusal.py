"""What stands in a plan's place where there is none: why, so that it is not tried again at every start for minutes."""

from __future__ import annotations

from typing import Annotated

import msgspec

from vidseg.runtime.engines.tensorrt.sidecar import PlanFacts

HOLDS_S = 24 * 3600
"""After a day it is tried again: memory may be free, a driver mended."""


class Refusal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A plan that could not be built.

    Attributes:
        facts: of the machine.
        reason: the error's message.
        when_s: since the Unix epoch.
    """

    facts: PlanFacts
    reason: Annotated[str, msgspec.Meta(max_length=2000)]
    when_s: float

    def holds(self, facts: PlanFacts, now_s: float) -> bool:
        """True where nothing of the machine has changed since, and it was not long ago."""
        return self.facts == facts and 0 <= now_s - self.when_s < HOLDS_S


def refusal_of(facts: PlanFacts, reason: str, when_s: float) -> bytes:
    """The content of a file."""
    return msgspec.json.encode(Refusal(facts=facts, reason=reason[:2000], when_s=when_s))


def read_refusal(content: bytes | None) -> Refusal | None:
    """A refusal from a file's content, which may be anything; None where it is none."""
    try:
        return None if content is None else msgspec.json.decode(content, type=Refusal)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None
