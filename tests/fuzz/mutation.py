"""Damage to bytes and texts that knows no format."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

ODD_BYTES = (
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xc3", b"\xed\xa0\x80", b"\x1b[2J", b"\x1b]0;x\x07", b"\r\n", b"\n",
    b"\x85",
    b"%00", b"%", b"../", b"\\", b"'", b'"', b"A" * 5000, b"\xf0\x9f\x92\xa5", b"\x7f", b"-1", b"1e999", b"9" * 400,
)  # fmt: skip

ODD_TEXTS = (
    "\x00", "\n", "\r", "\x1b[2J", "\x1b]0;x\x07", "\x9b31m", "\x85", "\u2028", "\u202e", "\u200b", "\ufeff", "\ud800",
    "\udcff", "а", "．", "：", "／", "＠", "٣", "𝟙", "é", "é", "💥", "%", "%00", "%0a", "%zz", "../", "\\", "'", '"',
    "{}",
    "${x}", "%s", "{0}", "A" * 5000, "-", "-1", "1e999", "nan", "inf", "9" * 400, "0x10", "1_0", " ", "\t",
)  # fmt: skip


def damaged_bytes(rng: random.Random, content: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Some bytes flipped, put in, taken out, moved, repeated, cut off, or come from others."""
    found = bytearray(content)
    for _ in range(_few(rng)):
        _BYTE_DAMAGES[rng.randrange(len(_BYTE_DAMAGES))](rng, found)
    if others and rng.random() < 0.1:
        other = rng.choice(others)
        found = found[: rng.randint(0, len(found))] + other[rng.randint(0, len(other)) :]
    return bytes(found)


def _few(rng: random.Random) -> int:
    return 1 + min(int(rng.expovariate(0.7)), 8)


def _flip(rng: random.Random, found: bytearray) -> None:
    if found:
        found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)


def _set(rng: random.Random, found: bytearray) -> None:
    if found:
        found[rng.randrange(len(found))] = rng.choice((0, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _insert(rng: random.Random, found: bytearray) -> None:
    place = rng.randint(0, len(found))
    found[place:place] = rng.choice((rng.choice(ODD_BYTES), rng.randbytes(rng.randint(1, 20))))


def _span(rng: random.Random, size: int) -> tuple[int, int]:
    first = rng.randint(0, size)
    return first, min(size, first + int(rng.expovariate(1 / 20)))


def _delete(rng: random.Random, found: bytearray) -> None:
    first, end = _span(rng, len(found))
    del found[first:end]


def _repeat(rng: random.Random, found: bytearray) -> None:
    first, end = _span(rng, len(found))
    found[first:first] = found[first:end] * rng.choice((1, 1, 2, 50))


def _move(rng: random.Random, found: bytearray) -> None:
    first, end = _span(rng, len(found))
    part = found[first:end]
    del found[first:end]
    place = rng.randint(0, len(found))
    found[place:place] = part


def _cut(rng: random.Random, found: bytearray) -> None:
    if rng.random() < 0.3:
        del found[rng.randint(0, len(found)) :]


_BYTE_DAMAGES: tuple[Callable[[random.Random, bytearray], None], ...] = (
    _flip, _set, _insert, _delete, _repeat, _move, _cut,
)  # fmt: skip


def damaged_text(rng: random.Random, text: str, odd: Sequence[str] = ODD_TEXTS) -> str:
    """Some characters replaced, put in, taken out or repeated, or a number that is another one."""
    for _ in range(_few(rng)):
        first, end = _span(rng, len(text))
        put = rng.choice(odd)
        text = rng.choice((
            text[:first] + put + text[first:],
            text[:first] + put + text[end:],
            text[:first] + text[end:],
            text[:end] + text[first:],
            _other_number(rng, text),
        ))  # fmt: skip
    return text


def _other_number(rng: random.Random, text: str) -> str:
    numbers = list(re.finditer(r"[0-9]+", text))
    if not numbers:
        return text
    found = rng.choice(numbers)
    other = rng.choice(("", "0", "-1", "1e9", "nan", "inf", "99999", "4294967296", "9" * 400, "0x1f", "1.5", "٣"))
    return text[: found.start()] + other + text[found.end() :]
