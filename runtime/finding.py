"""One thing that the doctor found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from vidseg.runtime.errors import VidsegError

Verdict: TypeAlias = Literal["ok", "slow", "missing", "broken"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        subject: what was looked at, in one word.
        verdict: `slow` works, but could be faster; `missing` is something optional; `broken` has to be mended.
        text: what was found.
        fix: what to do about it: a sentence or a command; "" where all is well, or where the text says it.
    """

    subject: str
    verdict: Verdict
    text: str
    fix: str = ""


def finding_of(subject: str, check: Callable[[], Finding | str]) -> Finding:
    """What a check finds; a text is a good sign, an error is not."""
    try:
        found = check()
    except (VidsegError, ImportError, OSError) as error:  # PackageNotFoundError is an ImportError
        return Finding(subject, "broken", str(error))
    return found if isinstance(found, Finding) else Finding(subject, "ok", found)
