"""A program is written from the guide: its lines have to be those that are written."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.runtime.results.test_regions import CLASSES, result
from tests.runtime.sinks.recording.material import WallClock
from vidseg.runtime.frame import SourceStatus
from vidseg.runtime.results.events import Rule
from vidseg.runtime.results.report import ReportOptions
from vidseg.runtime.results.zones import Zone
from vidseg.runtime.sinks.jsonl import JsonLinesSink, LineLimits

GUIDE = (Path(__file__).parents[3] / "docs/json-lines.md").read_text(encoding="utf-8")
CROSSING = Zone("crossing", ((0, 0), (0.5, 0), (0.5, 1), (0, 1)))


def test_the_lines_of_the_guide_are_those_that_are_written(tmp_path: Path) -> None:
    options = ReportOptions((CROSSING,), (Rule("car on crossing", "car", 0.4, zone="crossing"),))
    clock = WallClock()
    sink = JsonLinesSink(tmp_path / "out.jsonl", CLASSES, options, clock=clock)
    class_map = np.zeros((20, 40), np.uint8)
    class_map[:, :10] = 1
    made = result(class_map, (80, 40))
    frame = replace(
        made.frame, source="gate", index=412, captured_ns=clock.now_ns() - 42_000_000, stamp_ns=13_733_000_000,
        stamp_clock="driver",
    )  # fmt: skip
    sink.write(replace(made, frame=frame, age_ms=41.25), None)
    sink.notify(SourceStatus("gate", "lost", frame.captured_ns))
    written = (tmp_path / "out.jsonl").read_text().splitlines()
    shown = re.findall(r"```json\n(.*?)```", GUIDE, re.DOTALL)
    assert [json.dumps(json.loads(text), separators=(",", ":")) for text in shown] == written


def test_the_guide_has_every_field_and_the_limits() -> None:
    line = json.loads(re.findall(r"```json\n(.*?)```", GUIDE, re.DOTALL)[0])
    told = re.findall(r"`(\w+)`", "".join(row.split("|")[1] for row in GUIDE.splitlines() if row.startswith("| `")))
    assert told == [*line, "max_mib", "keep"]
    assert f"| `max_mib` | {LineLimits().max_mib:g} |" in GUIDE
    assert f"| `keep` | {LineLimits().keep} |" in GUIDE
