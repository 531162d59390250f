"""All that is told of one result, as plain values for programs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from vidseg.runtime.errors import ConfigurationError
from vidseg.runtime.frame import Segmentation
from vidseg.runtime.manifest import ClassSpec
from vidseg.runtime.results.events import Rule, Trigger
from vidseg.runtime.results.regions import regions_of, shares_of
from vidseg.runtime.results.zones import Zone


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """What is told.

    Attributes:
        zones: on the pictures of every source.
        rules: of events.
        regions: tell connected regions.
        region_classes: only of these classes; None for all.
        min_area_px: only those that are at least as large, in pixels of the frame.
    """

    zones: tuple[Zone, ...] = ()
    rules: tuple[Rule, ...] = ()
    regions: bool = True
    region_classes: Collection[str] | None = None
    min_area_px: float = 100.0


@dataclass(slots=True)
class Reporter:
    """Makes a document of each result. One for each source: events remember.

    Args:
        classes: of the model.
        options: see `ReportOptions`.

    Raises:
        ConfigurationError: a rule names a class or zone that is not there, or a name stands twice.
    """

    classes: Sequence[ClassSpec]
    options: ReportOptions
    _triggers: list[Trigger] = field(init=False)

    def __post_init__(self) -> None:
        check_names(self.classes, self.options)
        self._triggers = [Trigger(rule) for rule in self.options.rules]

    def document(self, segmentation: Segmentation) -> dict[str, Any]:
        """One result; a late one has times and no content.

        `shares` are of all pixels, by class; `zones` the same of each zone; `regions` as `Region` has them; `events`
        what has changed with this result, `active` the events that go on.
        """
        frame = segmentation.frame
        found: dict[str, Any] = {
            "source": frame.source, "epoch": frame.epoch, "index": frame.index, "captured_ns": frame.captured_ns,
            "stamp_ns": frame.stamp_ns, "stamp_clock": frame.stamp_clock, "size_wh": frame.image.shape[1::-1],
            "age_ms": round(segmentation.age_ms, 3), "late": segmentation.late,
        }  # fmt: skip
        shares, zones = {}, {}
        if not segmentation.late:
            shares = shares_of(segmentation, self.classes)
            zones = {zone.name: zone.shares(segmentation, self.classes) for zone in self.options.zones}
            found |= {"shares": _rounded(shares), "zones": {name: _rounded(part) for name, part in zones.items()}}
            if self.options.regions:
                options = self.options
                regions = regions_of(
                    segmentation, self.classes, wanted=options.region_classes, min_area_px=options.min_area_px
                )
                found["regions"] = [asdict(region) for region in regions]
        events = []
        for trigger in self._triggers:
            rule = trigger.rule
            share = (zones[rule.zone] if rule.zone else shares).get(rule.class_name) if shares else None
            change = trigger.update(share, frame.captured_ns, frame.epoch)
            if change is not None:
                events.append({"name": rule.name, "change": change, "share": round(share or 0.0, 4)})
        active = [trigger.rule.name for trigger in self._triggers if trigger.active]
        return found | {"events": events, "active": active}


def check_names(classes: Sequence[ClassSpec], options: ReportOptions) -> None:
    """Find a name that nothing has.

    Raises:
        ConfigurationError: there is one, or a name stands twice.
    """
    known = {spec.name for spec in classes}
    zones = [zone.name for zone in options.zones]
    rules = [rule.name for rule in options.rules]
    for kind, names in (("zones", zones), ("events", rules)):
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigurationError(f"two {kind} have the same name", twice[0])
    wanted = {rule.class_name for rule in options.rules} | set(options.region_classes or ())
    for name in sorted(wanted - known):
        raise ConfigurationError("the model has no such class", name, f"Use {', '.join(sorted(known))}.")
    for rule in options.rules:
        if rule.zone is not None and rule.zone not in zones:
            raise ConfigurationError(f"event {rule.name!r} names a zone that is not there", rule.zone)


def _rounded(shares: dict[str, float]) -> dict[str, float]:
    return {name: round(share, 4) for name, share in shares.items()}
