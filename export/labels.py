"""The classes of a model: a built-in set, a file of the user's, or what the model says of itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidseg.export.label_sets import LABEL_SETS
from vidseg.runtime.errors import ConfigurationError
from vidseg.runtime.manifest import ClassSpec
from vidseg.runtime.palette import Color, color_from_hex, distinct_colors
from vidseg.runtime.yaml_reading import read_yaml

MAX_CLASSES = 255
"""Ids are 0..254; 255 is unknown."""

_MAX_FILE_BYTES = 1 << 20
_LINE = re.compile(r"(?P<name>.*?\S)(?:\s+#(?P<color>[0-9a-fA-F]{6}))?\s*")
_HEX = re.compile(r"#[0-9a-fA-F]{6}")
_SETS = ", ".join(f"{name} ({len(classes)})" for name, classes in LABEL_SETS.items())
_FORM = "Write one name a line, a colour behind it where you like: road #804080"
_NOTHING = {"background", "void", "unlabelled", "unlabeled", "unknown", "other"}


@dataclass(frozen=True, slots=True)
class Label:
    """A class as it was given: its name, and its colour (red, green, blue) where one was named."""

    name: str
    color_rgb: Color | None = None


def read_labels(labels: str) -> tuple[ClassSpec, ...]:
    """The classes of `--labels`: the name of a built-in set, or a file.

    A file has one name a line, with `#rrggbb` behind it where a colour is wanted; or, where it ends in `.yaml` or
    `.yml`, it is a list of names or of `{name: road, color: "#804080"}`. Classes without a colour get one.

    Raises:
        ConfigurationError: no such set or file, or a file that is not of one of these forms.
    """
    if labels in LABEL_SETS:
        return LABEL_SETS[labels]
    path = Path(labels)
    if not path.is_file():
        raise ConfigurationError(
            f"{labels}: no label set and no file is named so", "nothing", f"Name a file, or one of {_SETS}."
        )
    try:
        with path.open("rb") as stream:
            text = stream.read(_MAX_FILE_BYTES + 1).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{labels}: the labels cannot be read", str(error), _FORM) from error
    if len(text) > _MAX_FILE_BYTES:
        raise ConfigurationError(f"{labels}: the labels are too large", f"over {_MAX_FILE_BYTES} bytes", _FORM)
    found = _from_yaml(text, labels) if path.suffix.lower() in {".yaml", ".yml"} else _from_lines(text, labels)
    return colored(found, labels)


def colored(labels: Sequence[Label], origin: str) -> tuple[ClassSpec, ...]:
    """Give every class a colour: its own, else that of a built-in set, else one unlike all others.

    Args:
        labels: the classes by id.
        origin: where they come from, for messages.

    Raises:
        ConfigurationError: none, too many, a name that is too long, or one that is there twice.
    """
    names = [label.name for label in labels]
    if not 1 <= len(names) <= MAX_CLASSES:
        raise ConfigurationError(f"{origin}: 1 to {MAX_CLASSES} classes are possible", f"{len(names)}", _FORM)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigurationError(f"{origin}: a class is there twice", twice[0], "Give every class a name of its own.")
    strange = [name for name in names if not name.isprintable()]
    if strange:
        raise ConfigurationError(f"{origin}: a name has control characters", repr(strange[0][:40]), _FORM)
    if max(map(len, names)) > 200:
        raise ConfigurationError(f"{origin}: a name is too long", f"{max(map(len, names))} letters", _FORM)
    given: list[Color | None] = [label.color_rgb or _known_color(label.name, names) for label in labels]
    colors = distinct_colors(given)
    return tuple(ClassSpec(name=name, color_rgb=color) for name, color in zip(names, colors, strict=True))


def check_count(classes: Sequence[ClassSpec], wanted: int, origin: str) -> None:
    """Refuse labels that do not fit the model.

    Raises:
        ConfigurationError: the model has another number of classes.
    """
    if len(classes) == wanted:
        return
    fitting = [name for name, known in LABEL_SETS.items() if len(known) == wanted]
    hint = f" or one of the sets that do: {', '.join(fitting)}" if fitting else ""
    raise ConfigurationError(
        f"{origin}: {len(classes)} names for a model of {wanted} classes",
        f"{classes[0].name} … {classes[-1].name}",
        f"Name labels that fit: a file with {wanted} lines{hint}.",
    )


def _from_lines(text: str, origin: str) -> list[Label]:
    labels = []
    for number, line in enumerate(text.rstrip().splitlines(), 1):
        found = _LINE.fullmatch(line.strip())
        if not found or found["name"].startswith("#"):
            raise ConfigurationError(f"{origin}: line {number} has no name", repr(line[:40]), _FORM)
        if re.search(r"\s#\S*$", found["name"]):
            raise ConfigurationError(f"{origin}: line {number} has a colour that is none", repr(line[:40]), _FORM)
        labels.append(Label(found["name"], color_from_hex(found["color"]) if found["color"] else None))
    return labels


def _from_yaml(text: str, origin: str) -> list[Label]:
    try:
        document = read_yaml(text)
    except ValueError as error:
        raise ConfigurationError(f"{origin}: the labels are no YAML", str(error), _FORM) from error
    if not isinstance(document, list):
        raise ConfigurationError(f"{origin}: the labels are no list", type(document).__name__, "Write `- name` lines.")
    return [_from_item(item, number, origin) for number, item in enumerate(document, 1)]


def _from_item(item: Any, number: int, origin: str) -> Label:
    entry = {"name": item} if isinstance(item, str) else item
    if isinstance(entry, dict) and entry.keys() <= {"name", "color"}:
        name, color = entry.get("name"), entry.get("color")
        if isinstance(name, str) and name.strip():
            if color is None:
                return Label(name.strip())
            if isinstance(color, str) and _HEX.fullmatch(color):
                return Label(name.strip(), color_from_hex(color[1:]))
    raise ConfigurationError(
        f"{origin}: class {number} is not understood",
        f"{item!r:.60}",
        'Write a name, or {name: road, color: "#804080"}.',
    )


def _known_color(name: str, names: Sequence[str]) -> Color | None:
    """The colour in the set that shares the most names with these, so that the colours belong together."""
    if name.lower() in _NOTHING:
        return 0, 0, 0
    holding = [classes for classes in LABEL_SETS.values() if any(known.name == name for known in classes)]
    if not holding:
        return None
    best = max(holding, key=lambda classes: len({known.name for known in classes}.intersection(names)))
    return next(known.color_rgb for known in best if known.name == name)
