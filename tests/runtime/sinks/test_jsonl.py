"""What a program reads has to be complete lines, and say everything that a person would see."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.runtime.results.test_regions import CLASSES, result
from tests.runtime.sinks.recording.material import WallClock
from vidseg.runtime.errors import ConfigurationError, SinkError
from vidseg.runtime.frame import SourceStatus
from vidseg.runtime.results.events import Rule
from vidseg.runtime.results.report import ReportOptions
from vidseg.runtime.results.zones import Zone
from vidseg.runtime.sinks.jsonl import JsonLinesSink

LEFT = Zone("left", ((0, 0), (0.5, 0), (0.5, 1), (0, 1)))


SMALL = result(np.zeros((4, 4), np.uint8))


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_has_times_shares_zones_regions_and_events(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    options = ReportOptions((LEFT,), (Rule("car left", "car", 0.5, zone="left"),), min_area_px=1)
    sink = JsonLinesSink(path, CLASSES, options, clock=WallClock())
    empty, full = np.zeros((20, 40), np.uint8), np.ones((20, 40), np.uint8)
    for class_map in (empty, full, full, empty):
        sink.write(result(class_map), None)
    sink.notify(SourceStatus("camera", "lost", 5))
    sink.close()
    sink.close()
    *found, lost = lines(path)
    assert lost == {"time": "2026-01-02T03:04:05.000Z", "source": "camera", "state": "lost", "since_ns": 5}
    assert found[0]["time"] == "2026-01-02T03:04:04.000Z"  # captured a second before
    assert found[1]["shares"] == {"road": 0, "car": 1, "person": 0}
    assert found[1]["zones"] == {"left": {"road": 0, "car": 1, "person": 0}}
    assert found[1]["regions"] == [
        {"class_name": "car", "area_px": 800, "box_xywh": [0, 0, 40, 20],
         "polygon_xy": [[0, 0], [0, 19], [39, 19], [39, 0]]}
    ]  # fmt: skip
    assert [line["events"] for line in found] == [
        [], [{"name": "car left", "change": "started", "share": 1}], [],
        [{"name": "car left", "change": "ended", "share": 0}],
    ]  # fmt: skip
    assert [line["active"] for line in found] == [[], ["car left"], ["car left"], []]
    assert found[0]["source"] == "camera"
    assert found[0]["size_wh"] == [40, 20]


@pytest.mark.parametrize(
    "options",
    [
        ReportOptions(rules=(Rule("x", "lorry", 0.5),)),
        ReportOptions(rules=(Rule("x", "car", 0.5, zone="nowhere"),)),
        ReportOptions((LEFT, LEFT)),
        ReportOptions(region_classes={"lorry"}),
    ],
)
def test_a_name_that_nothing_has_is_found_at_once(tmp_path: Path, options: ReportOptions) -> None:
    with pytest.raises(ConfigurationError):
        JsonLinesSink(tmp_path / "out.jsonl", CLASSES, options)
    assert list(tmp_path.iterdir()) == []


def test_a_place_where_no_file_can_be_is_an_error_of_the_sink(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="there is no folder"):
        JsonLinesSink(tmp_path / "none/out.jsonl", CLASSES)
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(SinkError, match=r"no plain file\. Use jsonl://- for a pipe"):
        JsonLinesSink(tmp_path / "pipe.jsonl", CLASSES)
    sink = JsonLinesSink("/proc/out.jsonl", CLASSES)
    with pytest.raises(SinkError, match="a line cannot be written: got No such file"):
        sink.write(SMALL, None)


def test_a_reader_that_is_gone_is_an_error_of_the_sink() -> None:
    code = (
        "import sys; from vidseg.runtime.frame import SourceStatus; from vidseg.runtime.errors import SinkError\n"
        "from vidseg.runtime.sinks.jsonl import JsonLinesSink; sink = JsonLinesSink('jsonl://-', ())\n"
        "sys.stdin.readline()\n"
        "try: sink.notify(SourceStatus('camera', 'lost', 5))\n"
        "except SinkError as error: print(error, file=sys.stderr, flush=True)\n"
        "import os; os._exit(7)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        _, said = process.communicate("go\n", timeout=30)
    assert said == "jsonl://-: a line cannot be written: got Broken pipe.\n"
    assert process.returncode == 7


@pytest.mark.timeout(60)
def test_the_command_writes_them_to_the_standard_output_and_nothing_else() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vidseg", "run", "--source", "scene://street?frames=4&pace=max", "--sink", "jsonl://-"],
        capture_output=True, text=True, timeout=50, check=True,
    )  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["index"] for line in found] == [0, 1, 2, 3]
    assert sum(found[-1]["shares"].values()) == pytest.approx(1, abs=0.01)
    assert {region["class_name"] for region in found[-1]["regions"]} >= {"road", "sky"}
