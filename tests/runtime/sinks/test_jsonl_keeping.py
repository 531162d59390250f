"""A file of lines has to outlive restarts, months and full disks, and hold whole lines whatever comes."""

from __future__ import annotations

import json
import logging
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.runtime.results.test_regions import CLASSES, result
from tests.runtime.sinks.recording.material import WallClock
from vidseg.runtime.errors import UsageError
from vidseg.runtime.frame import SourceStatus
from vidseg.runtime.results.events import Rule
from vidseg.runtime.results.report import ReportOptions
from vidseg.runtime.sinks.disk import RETRY_S
from vidseg.runtime.sinks.jsonl import JsonLinesSink, JsonLinesStatistics, LineLimits, parse_lines_path
from vidseg.runtime.sinks.line_file import LineFile
from vidseg.runtime.sinks.opening import sink_from_uri

EMPTY = result(np.zeros((4, 4), np.uint8))
FULL = result(np.ones((4, 4), np.uint8))
CARS = ReportOptions(rules=(Rule("cars", "car", 0.5),))


@contextmanager
def no_file_larger_than(size_bytes: int) -> Iterator[None]:
    """A disk with room for a part of a line: the system writes that, then says no."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def numbers(path: Path) -> list[int]:
    return [json.loads(line)["since_ns"] for line in path.read_text().splitlines()]


def test_a_service_that_starts_again_keeps_what_it_has_found(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    for _ in range(2):
        sink = JsonLinesSink(path, CLASSES)
        sink.write(EMPTY, None)
        sink.close()
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 2


def test_a_line_that_a_killed_run_began_is_alone(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(b'{"index":1}\n{"ind')
    sink = JsonLinesSink(path, CLASSES)
    sink.notify(SourceStatus("cam", "lost", 7))
    sink.notify(SourceStatus("cam", "lost", 8))
    sink.close()
    whole, torn, *ours = path.read_bytes().splitlines()
    assert (whole, torn) == (b'{"index":1}', b'{"ind')
    assert [json.loads(line)["since_ns"] for line in ours] == [7, 8]


def test_old_files_are_kept_up_to_a_number(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    file = LineFile(path, max_bytes=40, keep=2)
    for number in range(20):  # three lines of 12 or 13 bytes to a file
        file.append({"n": 100 + number})
    found = {
        one.name: [json.loads(line)["n"] - 100 for line in one.read_text().splitlines()] for one in tmp_path.iterdir()
    }
    assert found == {"out.jsonl": [16, 17, 18, 19], "out.jsonl.1": [12, 13, 14, 15], "out.jsonl.2": [8, 9, 10, 11]}
    LineFile(path, max_bytes=40, keep=0).append({"n": 1})
    assert path.read_text() == '{"n":1}\n'


@given(st.lists(st.integers(0, 60), max_size=30), st.integers(1, 80), st.integers(0, 3))
def test_lines_stay_whole_and_in_order_and_files_small(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], max_bytes: int, keep: int
) -> None:
    folder = tmp_path_factory.mktemp("lines")
    file = LineFile(folder / "x", max_bytes, keep)
    for number, length in enumerate(lengths):
        file.append({"n": number, "text": "." * length})
    paths = [folder / f"x.{number}" for number in range(keep, 0, -1)] + [folder / "x"]
    assert {path.name for path in folder.iterdir()} <= {path.name for path in paths}
    found = [path.read_bytes().splitlines() for path in paths if path.exists()]
    kept = [json.loads(line)["n"] for lines in found for line in lines]
    assert kept == list(range(len(lengths)))[len(lengths) - len(kept) :]
    assert all(len(lines) == 1 or sum(len(line) + 1 for line in lines) <= max_bytes for lines in found)


def test_a_full_disk_is_told_once_counted_and_over_when_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, clock = tmp_path / "out.jsonl", WallClock()
    sink = JsonLinesSink(path, CLASSES, clock=clock)
    sink.notify(SourceStatus("cam", "lost", 0))
    with no_file_larger_than(path.stat().st_size + 20):
        for number in range(1, 4):
            sink.notify(SourceStatus("cam", "lost", number))
        assert path.read_bytes().endswith(b"}\n")  # nothing of a line
        assert sink.statistics() == JsonLinesStatistics(1, 3, "File too large")
        clock.advance_ms(RETRY_S * 1000)
        sink.notify(SourceStatus("cam", "lost", 4))
        assert sink.statistics().missing == 4
    sink.notify(SourceStatus("cam", "lost", 5))  # not yet
    clock.advance_ms(RETRY_S * 1000)
    sink.notify(SourceStatus("cam", "lost", 6))
    sink.notify(SourceStatus("cam", "lost", 7))
    sink.close()
    assert numbers(path) == [0, 6, 7]
    assert sink.statistics() == JsonLinesStatistics(3, 5)
    stops, goes_on = caplog.records
    assert stops.levelno == logging.ERROR
    assert "no lines are written: File too large. Everything else goes on" in stops.getMessage()
    assert goes_on.getMessage() == f"{path}: lines are written again; 5 are missing"


def test_a_run_that_ends_on_a_full_disk_says_what_is_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "out.jsonl"
    sink = JsonLinesSink(path, CLASSES)
    sink.write(EMPTY, None)
    with no_file_larger_than(path.stat().st_size + 20):
        sink.write(EMPTY, None)
        sink.close()
        sink.close()
    assert [record.getMessage() for record in caplog.records][1:] == [f"{path}: 1 lines are missing"]


def test_a_removed_source_begins_anew(tmp_path: Path) -> None:
    """Its events are not those of a source that gets the same name later; nor does a month of names fill the memory."""
    path = tmp_path / "out.jsonl"
    sink = JsonLinesSink(path, CLASSES, CARS)
    for segmentation in (FULL, FULL):
        sink.write(segmentation, None)
    sink.notify(SourceStatus("camera", "removed", 5))
    sink.write(FULL, None)
    sink.close()
    first, second, removed, third = [json.loads(line) for line in path.read_text().splitlines()]
    assert [len(line["events"]) for line in (first, second, third)] == [1, 0, 1]
    assert removed["state"] == "removed"


@pytest.mark.parametrize(
    ("text", "path", "limits"),
    [
        ("out.jsonl", "out.jsonl", LineLimits(1000, 3)),
        ("a/OUT.JSONL#keep=0", "a/OUT.JSONL", LineLimits(keep=0)),
        ("out.jsonl#max_mib=10.5&keep=5", "out.jsonl", LineLimits(10.5, 5)),
        ("cam#2.jsonl", "cam#2.jsonl", LineLimits()),
        ("a#b=1.jsonl", "a#b=1.jsonl", LineLimits()),
        ("x.jsonl#old.jsonl", "x.jsonl#old.jsonl", LineLimits()),
        ("cam#2.jsonl#max_mib=5", "cam#2.jsonl", LineLimits(5)),
    ],
)
def test_a_name_may_have_limits_and_marks(tmp_path: Path, text: str, path: str, limits: LineLimits) -> None:
    assert parse_lines_path(text) == (path, limits)
    (tmp_path / "a").mkdir()
    sink = sink_from_uri(f"{tmp_path}/{text}", CLASSES)
    assert sink.name == f"{tmp_path}/{path}"
    sink.write(EMPTY, None)
    assert (tmp_path / path).is_file()


@pytest.mark.parametrize(
    "text",
    [
        "#max_mib=0", "#max_mib=nan", "#keep=-1", "#keep=2000", "#keep=1.5", "#max_mib=secret", "#secret", "#",
        "#keep=", "#keep=1&keep=2", "#keep=1&secret=2", "#keep=" + "9" * 200, "#max_mib=1&&keep=2",
    ],
)  # fmt: skip
def test_limits_that_are_none_are_refused_as_the_command_line_is(text: str) -> None:
    with pytest.raises(UsageError, match=r"JSON lines") as caught:
        sink_from_uri(f"out.jsonl{text}", CLASSES)
    assert "secret" not in str(caught.value)
    assert caught.value.exit_code == 2
