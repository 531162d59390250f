"""Documents of YAML and JSON: damage to their values, and to how they are written."""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Callable
from typing import Any

import yaml

from tests.fuzz.mutation import ODD_TEXTS, damaged_bytes, damaged_text

ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 255, 256, 2**31, 2**63, 2**64, -(2**63) - 1, 10**30, 0.0, -0.0, 0.5, 1e308, 1e-320,
    math.nan, math.inf, -math.inf, "", " ", "x", "~", "no", "1", "0" * 64, "a\n", [], {}, [[]], [None], {"": ""},
    [0, 0], "rtsp://a", "../x", "A" * 20_000,
)  # fmt: skip

YAML_ODDITIES = (
    "&a [*a]", "*a", "&a 1", "<<: {x: 1}", "!!python/object/apply:os.system [ls]", "!!binary =", "!!binary aGk=",
    "!!timestamp 2001-99-99", "2001-12-14t21:59:43.10-05:00", "2001-12-14", "!!set {a, b}", "!!omap [a: 1]",
    "!!int x", "!!float x", "!!bool x", "!!null x", "!!str 1", "!!map [1]", "!!seq {a: 1}", "!x 1", "!<tag:x> 1",
    "0x" + "f" * 6000, "0b" + "1" * 20_000, "9" * 6000, "1:59:59" + ":59" * 3000, "1_000", "0o17", "017",
    ".inf", ".nan", "? {a: 1} : 2",
    "? [1, 2]", "{[1]: 2}", "|\n  x", ">-\n  x", "'", '"\\', '"\\ud800"', '"\\0"', '"\\x1b[2J"',
    "# x", "\t",
    "--- x", "...", "%YAML 9.9\n---", "%TAG ! x", "@", "`", "- - - x", "a: b: c", "[" * 3000, "{a: " * 800, "- " * 2000,
    "=", "<<", "y", "{x: 1, x: 2}", "!!merge x", "- &b x", "\x85", "\u2028", "\ufeff",
)  # fmt: skip

JSON_ODDITIES = (
    "1e999", "-0", "NaN", "Infinity", '"\\ud800"', '"\\u0000"', "[" * 3000, '{"a":' * 3000, '{"x":1,"x":2}', "9" * 400,
    "01", "'x'", "//", '"\x1b"', '"\\u001b[2J"', "0.1e-400", "null", "tru", '"', "\\",
)  # fmt: skip


def damaged_document(rng: random.Random, document: Any, words: tuple[str, ...] = ()) -> Any:
    """A copy in which some values or keys are others, missing, moved, repeated or nested."""
    root = [copy.deepcopy(document)]
    for _ in range(1 + int(rng.expovariate(1))):
        holder, key = rng.choice(_places(root))
        rng.choice(_DAMAGES)(rng, holder, key, words)
    return root[0]


def _places(root: list[Any]) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    waiting: list[Any] = [root]
    while waiting and len(found) < 2000:
        holder = waiting.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        for key in keys:
            found.append((holder, key))
            if isinstance(holder[key], dict | list):
                waiting.append(holder[key])
    return found


def _replace(rng: random.Random, holder: Any, key: Any, words: tuple[str, ...]) -> None:
    value = holder[key]
    texts = [str(value), *words, *ODD_TEXTS]
    odd = copy.deepcopy(rng.choice(ODD_VALUES))
    holder[key] = rng.choice((odd, odd, rng.choice(texts), damaged_text(rng, str(value)[:200])))


def _remove(_: random.Random, holder: Any, key: Any, __: tuple[str, ...]) -> None:
    if isinstance(holder, dict):
        del holder[key]
    else:
        holder[key] = None


def _add(rng: random.Random, holder: Any, key: Any, words: tuple[str, ...]) -> None:
    value = copy.deepcopy(rng.choice((holder[key], *ODD_VALUES)))
    if isinstance(holder, dict):
        names = (damaged_text(rng, str(key)), rng.choice((*words, *ODD_TEXTS)), 7, None, 1.5, True)
        holder[rng.choice(names)] = value
    else:
        holder[key] = [holder[key], value]


def _rename(rng: random.Random, holder: Any, key: Any, words: tuple[str, ...]) -> None:
    if isinstance(holder, dict):
        holder[damaged_text(rng, str(key), (*words, *ODD_TEXTS))] = holder.pop(key)


def _repeat(rng: random.Random, holder: Any, key: Any, _: tuple[str, ...]) -> None:
    value = holder[key]
    if isinstance(value, list) and value:
        value.extend(copy.deepcopy(rng.choice(value)) for _ in range(rng.choice((1, 2, 300))))
    elif isinstance(value, dict) and value:
        one = next(iter(value.values()))
        value.update({f"more {number}": copy.deepcopy(one) for number in range(rng.choice((1, 150)))})


def _nest(rng: random.Random, holder: Any, key: Any, _: tuple[str, ...]) -> None:
    for __ in range(rng.choice((1, 2, 60))):
        holder[key] = [holder[key]] if rng.random() < 0.5 else {"x": holder[key]}


_DAMAGES: tuple[Callable[[random.Random, Any, Any, tuple[str, ...]], None], ...] = (
    _replace, _replace, _replace, _remove, _add, _rename, _repeat, _nest,
)  # fmt: skip


def hostile_yaml(rng: random.Random, document: Any, words: tuple[str, ...] = ()) -> bytes:
    """YAML of a document with damage to its values, its text, or its bytes."""
    level = rng.randrange(4)
    if level == 0 or rng.random() < 0.3:
        document = damaged_document(rng, document, words)
    style = rng.choice((False, False, None, True))
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, default_flow_style=style)
    if level == 1:
        text = _odd_lines(rng, text)
    elif level == 2:
        text = damaged_text(rng, text)
    content = text.encode("utf-8", "surrogatepass")
    if level == 3:
        content = damaged_bytes(rng, content, (b"--- x", text.encode("utf-16", "surrogatepass")))
    return content


def _odd_lines(rng: random.Random, text: str) -> str:
    if rng.random() < 0.02:
        return billion_laughs(rng.randint(5, 40))
    lines = text.split("\n")
    for _ in range(rng.randint(1, 2)):
        place = rng.randrange(len(lines))
        key, colon, _ = lines[place].partition(":")
        odd = rng.choice(YAML_ODDITIES)
        lines[place : place + 1] = rng.choice((
            [f"{key}{colon} {odd}"],
            [lines[place], odd],
            [lines[place], lines[place]],
            [lines[place].replace("  ", "\t")],
            [f"{key}: &a {lines[place].lstrip()}", "more: *a"],
        ))  # fmt: skip
    return "\n".join(lines)


def billion_laughs(depth: int) -> str:
    """YAML whose aliases stand for 10^depth values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, depth)]
    return "\n".join(lines)


def hostile_json(rng: random.Random, document: Any, words: tuple[str, ...] = ()) -> bytes:
    """JSON of a document with damage to its values, its text, or its bytes."""
    level = rng.randrange(4)
    if level == 0 or rng.random() < 0.3:
        document = damaged_document(rng, document, words)
    text = json.dumps(document, ensure_ascii=rng.random() < 0.5, default=str)
    if level == 1:
        place = rng.choice([n for n, character in enumerate(text) if character in ':,[{"'] or [0])
        text = text[: place + 1] + rng.choice(JSON_ODDITIES) + text[place + rng.randint(0, 12) :]
    elif level == 2:
        text = damaged_text(rng, text)
    content = text.encode("utf-8", "surrogatepass")
    return damaged_bytes(rng, content) if level == 3 else content
