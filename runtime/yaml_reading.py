"""Reading YAML that nobody vouches for."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

MAX_BYTES = 128 << 10
"""Of a document. PyYAML reads 50 to 500 KiB a second; a bundle of 255 classes and 100 members has 30 KiB."""

MAX_NUMBER_LENGTH = 100
"""Of numbers and dates as they are written. Longer ones have no use, and those to the base of 60 (YAML 1.1, int) take
quadratic time to be read: minutes, where there is a mebibyte of them."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""What a terminal obeys, no path may have in it, or no file can hold: none of our documents has a use for them."""


_OF_CONSTRUCTORS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
"""What PyYAML's own constructors fall over with, at `!!bool x`, `!!timestamp x`, `!!int ""` and the like."""


class _RefusedError(ValueError):
    """Text that says why, and repeats no value."""


def read_yaml(text: str | bytes) -> Any:
    """Plain values from YAML, by the safe loader; without aliases, of which a few can stand for gigabytes, without keys
    that are there twice, of which one would be lost unseen, and without control characters.

    Raises:
        ValueError: it is no such YAML; the message is one short line that repeats no value.
    """
    import yaml

    class StrictLoader(yaml.SafeLoader):
        """See above."""

        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            if self.check_event(yaml.AliasEvent):
                raise _RefusedError("an alias (&, *) is not allowed")
            node: yaml.Node | None = super().compose_node(parent, index)
            return node

        def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
            if len(node.value) > MAX_NUMBER_LENGTH and not node.tag.endswith((":str", ":value")):
                raise _RefusedError(f"a number or date of {len(node.value)} characters")
            if _CONTROL.search(node.value):
                raise _RefusedError(f"a value with a control character, line {node.start_mark.line + 1}")
            return super().construct_scalar(node)

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            mapping: dict[Any, Any] = super().construct_mapping(node, deep)
            if len(mapping) != len(node.value):
                [(twice, _)] = Counter(str(key.value) for key, _ in node.value).most_common(1)
                raise _RefusedError(f"the key {twice[:40]!r} is there twice")
            return mapping

    if len(text) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES >> 10} KiB")
    try:
        return yaml.load(text, Loader=StrictLoader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError, *_OF_CONSTRUCTORS) as error:
        raise ValueError(_reason(error)) from None


def _reason(error: Exception) -> str:
    """What is wrong and where, without what is quoted: it may be a part of a password."""
    import yaml

    if isinstance(error, _RefusedError):
        return str(error)
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, yaml.MarkedYAMLError):
        said = re.sub(r"'[^']*'|\"[^\"]*\"", _hidden, error.problem or "no YAML")
        return said[:200] + (f", line {error.problem_mark.line + 1}" if error.problem_mark is not None else "")
    if isinstance(error, yaml.YAMLError):  # no UTF-8, or a character that YAML has not
        return str(error).splitlines()[0][:200]
    return "a value is not of the kind that it is written as"  # one of YAML's constructors fell over it


def _hidden(quoted: re.Match[str]) -> str:
    """Signs and PyYAML's own names of what it found stay: `','`, `'<stream end>'`."""
    return quoted[0] if len(quoted[0]) <= 5 or quoted[0][1] == "<" else "'…'"
