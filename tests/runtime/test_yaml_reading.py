"""YAML is read before anything is known of it: what a few bytes can make a parser do must not happen here."""

from __future__ import annotations

import re
from contextlib import suppress
from time import process_time

import pytest

from vidseg.runtime.yaml_reading import MAX_BYTES, read_yaml


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: !!bool zebra7", "not of the kind"),
        ("a: !!timestamp zebra7", "not of the kind"),
        ('a: !!int ""', "not of the kind"),
        ("a: !!int zebra7", "not of the kind"),
        ("a: !zebra7 1", "could not determine a constructor for the tag '…', line 1"),
        ("a: 0x" + "f" * 5000, "a number or date of 5002 characters"),
        ('a: "\\ud800"', "a value with a control character, line 1"),
        ("b: 1\na: |\n  x\n", "a value with a control character, line 2"),
        ('a: "\\0"', "a value with a control character, line 1"),
        ("- " * 5000, "nested too deeply"),
        ("a" * (MAX_BYTES + 1), "more than 128 KiB"),
        ("a: [1, 2", "expected ',' or ']', but got '<stream end>', line 1"),
        ("a: 1\nb: 2\na: 3\n", "the key 'a' is there twice"),
    ],
)
def test_what_is_wrong_is_one_short_line_that_repeats_no_value(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        read_yaml(text)
    assert "zebra7" not in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "text",
    ["a: 1" + ":59" * 40_000, "\n".join(f"k{n}: 1" for n in range(6_000)) + "\nk0: 1", "[" + "[]," * 20_000 + "]"],
    ids=["number to the base of 60", "keys", "lists"],
)
def test_no_document_takes_minutes(text: str) -> None:
    started = process_time()
    with suppress(ValueError):
        read_yaml(text)
    assert process_time() - started < 10
