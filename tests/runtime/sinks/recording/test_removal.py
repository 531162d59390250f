"""Cameras that are added and removed for months must not take memory, threads and files with them, nor the quota."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.runtime.sinks.recording.material import (
    CARS,
    CLASSES,
    INTERVAL_MS,
    RATE,
    WallClock,
    all_numbers,
    coded_picture,
    events,
    segments,
)
from vidseg.runtime.frame import Frame, Segmentation, SourceStatus
from vidseg.runtime.sinks.recording.encoder import PictureEncoder
from vidseg.runtime.sinks.recording.options import RecordingOptions
from vidseg.runtime.sinks.recording.sink import RecordingSink
from vidseg.runtime.sinks.recording.track import Track

NAMES = [f"cam{number}" for number in range(10)]


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What holds itself only would stay until the collector comes by: hours, for what is large and not many."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def cameras(
    sink: RecordingSink, clock: WallClock, names: list[str], *, count: int = RATE, cars: bool = False, noise: int = 0
) -> None:
    """Each of them gives so many pictures."""
    for index in range(count):
        clock.advance_ms(INTERVAL_MS)
        now_ns, image = clock.now_ns(), coded_picture(index, noise=noise)
        for name in names:
            frame = Frame(name, 0, index, now_ns, now_ns, "driver", image)
            sink.write(Segmentation(frame, np.full((4, 4), cars, np.uint8), np.eye(2, 3), 1.0), image)


def remove(sink: RecordingSink, clock: WallClock, names: list[str]) -> None:
    for name in names:
        sink.notify(SourceStatus(name, "removed", clock.now_ns()))


def threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def open_files(folder: Path) -> list[Path]:
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sorted(link.readlink() for link in links if str(folder) in str(link.readlink()))


@pytest.mark.usefixtures("no_collector")
def test_of_sources_that_were_removed_only_files_and_counts_are_left(tmp_path: Path) -> None:
    clock = WallClock()
    sink = RecordingSink(tmp_path / "rec", CLASSES, RecordingOptions(min_free_mib=1), clock=clock)
    cameras(sink, clock, ["stays"])
    before, files = threads(), open_files(tmp_path)
    cameras(sink, clock, NAMES)
    assert threads() > before
    assert len(open_files(tmp_path)) == len(files) + 10
    remove(sink, clock, [*NAMES, "never there", "cam0"])
    assert sink.statistics().recorded >= 10 * RATE
    assert threads() == before
    assert open_files(tmp_path) == files
    left = [thing for thing in gc.get_objects() if isinstance(thing, (Track, PictureEncoder))]
    assert len(left) == 2  # of the one that stays
    for name in NAMES:
        assert all_numbers(segments(tmp_path / "rec" / name)) == list(range(RATE))
    cameras(sink, clock, ["cam3"])  # it comes back
    sink.close()
    assert sink.statistics().recorded == 12 * RATE
    assert sink.statistics().not_recorded == 0
    assert len(segments(tmp_path / "rec/cam3")) == 2


def test_the_quota_deletes_what_removed_sources_have_left(tmp_path: Path) -> None:
    clock = WallClock()
    options = RecordingOptions(segment_s=1, quota_gib=1 / 1024, min_free_mib=0)
    sink = RecordingSink(tmp_path / "rec", CLASSES, options, clock=clock)
    cameras(sink, clock, NAMES)
    remove(sink, clock, NAMES)
    for _ in range(20):
        cameras(sink, clock, ["stays"], noise=80)
        if not any(segments(tmp_path / "rec" / name) for name in NAMES):
            break
    sink.close()
    assert [name for name in NAMES if segments(tmp_path / "rec" / name)] == []
    assert sink.statistics().trouble == ""
    assert sink.statistics().not_recorded == 0


def test_an_event_of_a_removed_source_has_an_end(tmp_path: Path) -> None:
    clock = WallClock()
    options = RecordingOptions(min_free_mib=0, events=("cars",), pre_s=0)
    sink = RecordingSink(tmp_path / "rec", CLASSES, options, report=CARS, clock=clock)
    cameras(sink, clock, ["cam"], cars=True)
    remove(sink, clock, ["cam"])
    assert [event["change"] for event in events(tmp_path / "rec/cam")] == ["started", "stopped"]
    sink.close()
    assert len(events(tmp_path / "rec/cam")) == 2


def test_what_was_missing_of_a_removed_source_stays_counted(tmp_path: Path) -> None:
    clock = WallClock()
    sink = RecordingSink(tmp_path / "rec", CLASSES, RecordingOptions(min_free_mib=0), clock=clock)
    cameras(sink, clock, ["cam"])
    (tmp_path / "rec").rename(tmp_path / "away")
    cameras(sink, clock, ["cam"], count=3 * RATE)
    remove(sink, clock, ["cam"])
    seen = sink.statistics()
    assert seen.trouble
    assert seen.not_recorded > 0
    assert seen.recorded + seen.not_recorded == 4 * RATE
    (tmp_path / "away").rename(tmp_path / "rec")
    clock.advance_ms(30_000)
    cameras(sink, clock, ["next"], count=2 * RATE)
    sink.close()
    assert sink.statistics().trouble == ""
    assert sink.statistics().recorded + sink.statistics().not_recorded == 6 * RATE
