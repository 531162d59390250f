"""Somebody stands beside the machine while it records: an hour that ends in a useless folder is not to be had again."""

from __future__ import annotations

import resource
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.fakes import VirtualClock
from tests.media import moving_blocks
from vidseg.calibration.frame_filter import FrameCounts
from vidseg.calibration.recording import RecordingOptions, record_frames
from vidseg.runtime.clock import Clock
from vidseg.runtime.errors import (
    ConfigurationError,
    FrameError,
    SinkError,
    SourceLostError,
    SourceOpenError,
    UsageError,
    VidsegError,
)
from vidseg.runtime.frame import Frame, Image
from vidseg.runtime.sources import Source
from vidseg.runtime.sources.folder import FolderSource
from vidseg.runtime.sources.scene import SceneSource


class LivePictures:
    """A camera at 10 frames a second that shows pictures, raises errors, and then ends."""

    def __init__(self, shots: list[Image | VidsegError]) -> None:
        self.name = "camera"
        self.live = True
        self.closed = False
        self._shots = shots
        self._next = 0

    def open(self, clock: Clock, stop: threading.Event) -> None:
        self._clock = clock
        self._stop = stop

    def read(self) -> Frame | None:
        if self._stop.is_set() or self._next == len(self._shots):
            return None
        self._clock.sleep_until(self._clock.now_ns() + 100_000_000, self._stop)
        shot, self._next = self._shots[self._next], self._next + 1
        if isinstance(shot, VidsegError):
            raise shot
        now_ns = self._clock.now_ns()
        return Frame(self.name, 0, self._next, now_ns, now_ns, "driver", shot.copy())

    def close(self) -> None:
        self.closed = True


def street(fps: int = 10) -> SceneSource:
    return SceneSource.from_uri(f"scene://street?size=96x64&fps={fps}")


def different(count: int) -> list[Image | VidsegError]:
    return list(moving_blocks(5 * count)[::5])


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_frames_are_recorded_at_an_interval_and_can_be_read(tmp_path: Path) -> None:
    seen: list[int] = []
    options = RecordingOptions(frames=6, seconds=60)
    recording = record_frames(street(), tmp_path / "calib", options, clock=VirtualClock(), progress=seen.append)
    assert recording.ending == "complete"
    assert recording.counts == FrameCounts(kept=6, passed_over=20)
    assert seen == [1, 2, 3, 4, 5, 6]
    assert files(tmp_path / "calib") == [f"{number:06}.png" for number in range(6)]
    last = cv2.imread(str(tmp_path / "calib" / "000005.png"))
    assert last is not None
    assert last.shape == (64, 96, 3)


def test_only_different_pictures_are_recorded_and_exactly(tmp_path: Path) -> None:
    first, second = moving_blocks(10)[::9]
    black = np.zeros_like(first)
    source = LivePictures([black, first, first, FrameError("torn"), second, first])
    recording = record_frames(source, tmp_path / "calib", RecordingOptions(9, 60, 0), clock=VirtualClock())
    assert recording.ending == "source ended"
    assert recording.counts == FrameCounts(kept=2, unreadable=1, blank=1, frozen=1, near_duplicate=1)
    for name, picture in (("000000.png", first), ("000001.png", second)):
        np.testing.assert_array_equal(cv2.imread(str(tmp_path / "calib" / name)), picture)
    assert source.closed


def test_a_recording_ends_when_its_time_is_over(tmp_path: Path) -> None:
    recording = record_frames(street(1), tmp_path / "calib", RecordingOptions(99, 5), clock=VirtualClock())
    assert recording.ending == "time over"
    assert recording.counts.kept == len(files(tmp_path / "calib")) == 6


@pytest.mark.timeout(20)
def test_a_stop_ends_the_wait_and_keeps_what_is_there(tmp_path: Path) -> None:
    """The next frame is due in 100 seconds; whoever presses Ctrl-C does not wait for it."""
    stop = threading.Event()
    source = SceneSource.from_uri("scene://street?size=96x64&fps=0.01")
    options = RecordingOptions(9, 3600)
    recording = record_frames(source, tmp_path / "calib", options, stop=stop, progress=lambda _done: stop.set())
    assert recording.ending == "stopped"
    assert files(tmp_path / "calib") == ["000000.png"]


def test_what_was_recorded_before_a_loss_stays(tmp_path: Path) -> None:
    source = LivePictures([*different(3), SourceLostError("camera: the camera is gone")])
    with pytest.raises(SourceLostError, match=r"3 of 9 frames are in .*calib: got camera: the camera is gone"):
        record_frames(source, tmp_path / "calib", RecordingOptions(9, 60, 0), clock=VirtualClock())
    assert len(files(tmp_path / "calib")) == 3
    assert source.closed


@pytest.mark.parametrize(
    "source", [LivePictures([np.zeros((48, 64, 3), np.uint8)] * 5), LivePictures([SourceOpenError("camera: dead")])]
)
def test_without_a_frame_no_folder_is_left(source: Source, tmp_path: Path) -> None:
    with pytest.raises(VidsegError, match=r"5 blank\)\. Check that the lens is not covered|dead"):
        record_frames(source, tmp_path / "calib", RecordingOptions(9, 60), clock=VirtualClock())
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for folder, message in [
        (tmp_path, "not empty: got 1 files"),
        (tmp_path / "mine.txt", "is no folder"),
        (tmp_path / "a" / "b", "the folder above is missing"),
        (Path("/proc/frames"), "cannot be made: got a folder that takes none"),
    ]:
        with pytest.raises(ConfigurationError, match=message):
            record_frames(street(), folder, RecordingOptions(9, 60))
    assert files(tmp_path) == ["mine.txt"]


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    record_frames(street(), tmp_path, RecordingOptions(1, 60), clock=VirtualClock())
    assert files(tmp_path) == ["000000.png"]


def test_a_full_disk_leaves_whole_files_only(tmp_path: Path) -> None:
    rough = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    source = LivePictures([*different(2), rough])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(SinkError, match=r"000002\.png cannot be written"):
            record_frames(source, tmp_path / "calib", RecordingOptions(9, 60, 0), clock=VirtualClock())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(tmp_path / "calib") == ["000000.png", "000001.png"]


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs no recording"):
        record_frames(FolderSource(tmp_path), tmp_path / "calib", RecordingOptions(9, 60))
    for frames, seconds in ((0, 60.0), (9, 0.0), (9, np.nan), (9, np.inf), (9, 1e300)):
        with pytest.raises(UsageError, match="finite time"):
            RecordingOptions(frames, seconds)
    for interval_s in (-1.0, np.nan, np.inf, 1e300):
        with pytest.raises(UsageError, match="finite time"):
            RecordingOptions(9, 60, interval_s)
