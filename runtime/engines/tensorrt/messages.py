"""What TensorRT's own messages say, for a person: one line, without the places in its source."""

from __future__ import annotations

import re
from collections.abc import Sequence

_BEFORE = re.compile(r"^.*Error Code \d+: |^\[[\w.]+::\w+(::\d+)?\] ")
_PLACE = re.compile(r"\s*\.? In \w+ at \S+:\d+")
_NESTED = re.compile(r"\(In \w+ at \S+:\d+ \((.*)\)\)$")
_KIND = re.compile(r"^(?:API Usage Error|Internal Error) \((.*)\)$")

_HOLLOW = ("Assertion engine != nullptr", "Assertion enginePtr != nullptr", "CUDA driver version is insufficient")
"""Of messages that only follow from another one."""

_MEMORY = ("out of memory", "outofmemory", "bad_alloc", "insufficient memory", "cannot allocate memory")


def telling(errors: Sequence[str]) -> str:
    """The first of some errors that says something; "" where there is none."""
    lines = [line for line in map(readable, errors) if line]
    telling_ones = [line for line in lines if not any(words in line for words in _HOLLOW)]
    return next(iter([*telling_ones, *lines]), "")


def readable(message: str) -> str:
    """A message in one line of at most 300 characters."""
    first = [line for line in message.splitlines() if line.strip() and not line.startswith("Invalid Node")]
    text = " ".join((first[0] if first else message).split())
    text = _PLACE.sub("", _NESTED.sub(r"(\1)", _BEFORE.sub("", text)))
    return _KIND.sub(r"\1", text)[:300].rstrip(" .!")


def tells_of_memory(errors: Sequence[str]) -> bool:
    """True where some error says that memory ran out."""
    text = "\n".join(errors).lower()
    return any(words in text for words in _MEMORY)
