"""A full disk must cost the recording only, be told once, and be over when there is room again."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.sinks.recording.material import CARS, RATE, Recording, all_numbers, events, segments
from vidseg.runtime.sinks.disk import RETRY_S
from vidseg.runtime.sinks.recording.options import RecordingOptions

SMALL = RecordingOptions(segment_s=2, min_free_mib=0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no small disk can be mounted: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)  # a test that failed has files open


def full(recording: Recording, limit: int = 400) -> None:
    """Write until the disk says no."""
    for _ in range(limit):
        recording.write()
        if recording.sink.statistics().trouble:
            return
    raise AssertionError("the disk was never full")


def noisy(folder: Path, options: RecordingOptions = SMALL) -> Recording:
    recording = Recording(folder, options)
    recording.size_wh, recording.noise = (320, 240), 80
    return recording


def test_a_full_disk_stops_the_recording_once_and_room_lets_it_go_on(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recording = noisy(small_disk / "rec")
    full(recording)
    assert recording.sink.statistics().trouble == "No space left on device"
    in_time = all_numbers(segments(small_disk / "rec/cam"))
    assert in_time == list(range(len(in_time)))
    assert len(in_time) == recording.sink.statistics().recorded >= recording.index - RATE - 1
    for _ in range(3):  # nothing is deleted for it, nothing is told again
        recording.write()
        recording.clock.advance_ms(RETRY_S * 1000)
    recording.write(RATE + 5)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    segments(small_disk / "rec/cam")[0].unlink()
    segments(small_disk / "rec/cam")[0].unlink()
    recording.clock.advance_ms(RETRY_S * 1000)
    resumed_at = recording.index
    recording.noise = 0
    recording.write(3 * RATE)
    recording.close()
    statistics = recording.sink.statistics()
    assert statistics.trouble == ""
    assert statistics.recorded + statistics.not_recorded == recording.index
    assert all_numbers(segments(small_disk / "rec/cam"))[-3 * RATE :] == list(range(resumed_at, recording.index))
    stops, goes_on = [record.getMessage() for record in caplog.records]
    assert "the recording stops: No space left on device. Everything else goes on" in stops
    assert f"goes on; {statistics.not_recorded} frames are missing" in goes_on


def test_the_reserve_is_left_free(small_disk: Path) -> None:
    recording = noisy(small_disk / "rec", RecordingOptions(segment_s=2, min_free_mib=1))
    full(recording)
    disk = os.statvfs(small_disk)
    assert recording.sink.statistics().trouble == "only 1 MiB are free"
    assert disk.f_bavail * disk.f_frsize > 300_000  # a fragment more than asked for, at most
    statistics = recording.sink.statistics()
    assert statistics.recorded + statistics.not_recorded == recording.index
    assert all_numbers(segments(small_disk / "rec/cam")) == list(range(statistics.recorded))
    recording.close()


def test_a_quota_lets_it_go_on_for_ever(small_disk: Path) -> None:
    recording = noisy(small_disk / "rec", RecordingOptions(segment_s=1, quota_gib=2 / 1024, min_free_mib=0))
    most = 0
    for _ in range(8 * RATE):
        recording.write()
        files = segments(small_disk / "rec/cam")
        most = max(most, sum(path.stat().st_size for path in files))
    recording.close()
    assert recording.sink.statistics().not_recorded == 0
    assert most <= 2 << 20
    numbers = all_numbers(segments(small_disk / "rec/cam"))
    assert numbers == list(range(numbers[0], 8 * RATE))
    assert numbers[0] > 0


def test_a_folder_that_goes_away_and_comes_back_is_used_again(tmp_path: Path) -> None:
    """As with a disk that is unplugged: its folder is there again later."""
    disk = tmp_path / "disk"
    disk.mkdir()
    recording = Recording(disk / "rec", SMALL)
    recording.write(2 * RATE)
    disk.rename(tmp_path / "away")
    recording.write(3 * RATE)
    assert recording.sink.statistics().trouble == "No such file or directory"
    (tmp_path / "away").rename(disk)
    recording.clock.advance_ms(RETRY_S * 1000)
    resumed_at = recording.index
    recording.write(2 * RATE)
    recording.close()
    assert recording.sink.statistics().trouble == ""
    numbers = all_numbers(segments(disk / "rec/cam"))
    assert numbers[-2 * RATE :] == list(range(resumed_at, recording.index))
    assert numbers == sorted(set(numbers))


def test_events_that_could_not_be_told_are_told_later(small_disk: Path) -> None:
    recording = Recording(small_disk / "rec", RecordingOptions(10, None, 0, ("cars",), pre_s=1, post_s=0), report=CARS)
    recording.write(RATE)
    (small_disk / "filler").write_bytes(b"")
    with (small_disk / "filler").open("wb", buffering=0) as filler:
        while filler.write(bytes(4096)) == 4096:
            if os.statvfs(small_disk).f_bavail == 0:
                break
    recording.write(5, cars=True)
    recording.write(5)
    assert recording.sink.statistics().trouble
    (small_disk / "filler").unlink()
    recording.clock.advance_ms(RETRY_S * 1000)
    recording.write(RATE)
    recording.close()
    told = events(small_disk / "rec/cam")
    assert [(event["change"], event["file"]) for event in told] == [("started", None), ("ended", None)]
    assert recording.sink.statistics().not_recorded >= 6
    assert recording.sink.statistics().trouble == ""
