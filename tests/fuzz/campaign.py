"""Cases that differ by their seed alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone

import pytest

LONG_ROUNDS = 30
"""With the counts of the tests, 10^5 cases in all."""


@dataclass(slots=True)
class Campaign:
    """One round of all kinds of cases.

    Attributes:
        seed: a word; the same one gives the same cases.
        only: the kind and number of the single case that is wanted; None for all.
        current: the case that runs now, as FUZZ_SEED takes it.
    """

    seed: str
    only: tuple[str, int] | None = None
    current: str = ""

    def cases(self, kind: str, count: int) -> Iterator[random.Random]:
        """The random numbers of each case in turn."""
        numbers = range(count)
        if self.only is not None:
            if self.only[0] != kind:
                pytest.skip(f"FUZZ_SEED names a case of {self.only[0]}")
            numbers = range(self.only[1], self.only[1] + 1)
        for number in numbers:
            self.current = f"{self.seed}/{kind}/{number}"
            yield random.Random(self.current)


def campaigns(wanted: str, *, long: bool) -> dict[str, Campaign]:
    """By a name that is the same every day: what `FUZZ_SEED` wants; without it the fixed rounds, and that of today."""
    word, slash, rest = wanted.partition("/")
    if slash:
        kind, _, number = rest.partition("/")
        return {"one": Campaign(word, (kind, int(number)))}
    if wanted:
        return {"wanted": Campaign(wanted)}
    today = datetime.now(timezone.utc).date().isoformat()
    fixed = {str(number): Campaign(str(number)) for number in range(LONG_ROUNDS - 1 if long else 1)}
    return {**fixed, "today": Campaign(today)}
