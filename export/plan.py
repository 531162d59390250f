"""The recorded outcome of a search, so that an export can be repeated to the byte without searching again."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import msgspec

from vidseg.runtime.engines.opening import EngineName
from vidseg.runtime.errors import ConfigurationError


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which groups are quantized, and where ranges are measured.

    Attributes:
        calibration_engine: in which activations are observed: results differ in their last bits between engines.
        accurate: names of the groups within the budget.
        targets: names of the groups that are quantized, by engine that INT8 is written for.
        tensorrt: names of the groups that are quantized for TensorRT; none where nothing is written for it.
        dla: names of the groups that are quantized for DLA; None where nobody asked.
    """

    calibration_engine: EngineName
    accurate: tuple[str, ...]
    targets: dict[EngineName, tuple[str, ...]]
    tensorrt: tuple[str, ...]
    dla: tuple[str, ...] | None = None

    def check(self, name: str, groups: Collection[str], engines: Collection[EngineName]) -> None:
        """Check that the plan is of this model, and that it can be followed here.

        Args:
            name: of the model, for messages.
            groups: names of all groups that may be quantized in it.
            engines: that are installed.

        Raises:
            ConfigurationError: it names other groups or engines.
        """
        named = {
            *self.accurate,
            *self.tensorrt,
            *(self.dla or ()),
            *(group for some in self.targets.values() for group in some),
        }
        unknown = sorted(named.difference(groups))
        if unknown:
            got = f"it quantizes {unknown[0]!r}, which is not there"
            raise ConfigurationError(f"{name}: the plan is of another model", got, "Export without --plan.")
        missing = sorted({self.calibration_engine, *self.targets}.difference(engines))
        if missing:
            what, do = f"{name}: the plan needs an engine that is not installed", f"pip install {missing[0]}"
            raise ConfigurationError(what, ", ".join(missing), do)


def read_plan(path: Path) -> Plan:
    """A plan, from its own file or from a `report.json` that holds one.

    Raises:
        ConfigurationError: unreadable, or no plan.
    """
    do = "Take report.json of an export with --calib."
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path}: there is no such file", "", do) from error
    except IsADirectoryError as error:
        raise ConfigurationError(f"{path}: not a plan", "a folder", do) from error
    except OSError as error:
        raise ConfigurationError(f"{path}: the plan cannot be read", error.strerror or "", do) from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path}: not a plan", "something else than JSON", do) from error
    if isinstance(document, dict) and "plan" in document:
        document = document["plan"]
    elif not isinstance(document, dict) or document.keys().isdisjoint(Plan.__struct_fields__):
        raise ConfigurationError(f"{path}: not a plan", "JSON that has no `plan`", do)
    try:
        return msgspec.convert(document, Plan)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{path}: not a plan", str(error)[:200], do) from error
