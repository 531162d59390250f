"""The recorded outcome of a search, so that an export can be repeated to the byte without searching again."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from vidseg.runtime.engines.opening import EngineName
from vidseg.runtime.errors import ConfigurationError


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which groups are quantized, and where ranges are measured.

    Attributes:
        laboratory: the engine in which activations are watched: results differ in their last bits between engines.
        accurate: names of the groups within the budget.
        targets: names of the groups that are quantized, by engine.
    """

    laboratory: EngineName
    accurate: tuple[str, ...]
    targets: dict[EngineName, tuple[str, ...]]


def read_plan(path: Path) -> Plan:
    """A plan, from its own file or from a `report.json` that holds one.

    Raises:
        ConfigurationError: unreadable, or no plan.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(document, dict) and "plan" in document:
            document = document["plan"]
        return msgspec.convert(document, Plan)
    except (OSError, ValueError, RecursionError, msgspec.ValidationError) as error:
        raise ConfigurationError(f"{path}: not a plan", str(error)[:200], "Take report.json of an export.") from error
