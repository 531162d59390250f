"""What was recorded before the power went is what people want to see."""

from __future__ import annotations

import logging
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.sinks.recording.material import RATE, Recording, all_numbers, played, segments
from vidseg.runtime.sinks.recording.options import RecordingOptions
from vidseg.runtime.sinks.recording.repair import is_finished

ROOT = Path(__file__).parents[4]

RECORDER = """
import sys, threading
from pathlib import Path
from tests.runtime.sinks.recording.material import CLASSES, coded_picture
from vidseg.runtime.clock import SystemClock
from vidseg.runtime.frame import Frame, Segmentation
from vidseg.runtime.sinks.recording.options import RecordingOptions
from vidseg.runtime.sinks.recording.sink import RecordingSink
from vidseg.runtime.sources.scene import SceneSource
import numpy as np

cameras = [SceneSource.from_uri(f"scene://street?size=192x144&pace=max&noise=0&fps=25&seed={n}") for n in range(2)]
clock = SystemClock()
for camera in cameras:
    camera.open(clock, threading.Event())
sink = RecordingSink(sys.argv[1], CLASSES, RecordingOptions(segment_s=1, min_free_mib=1, picture="frame"))
while True:
    for number, camera in enumerate(cameras):
        found = camera.read()
        frame = Frame(f"cam{number}", 0, found.index, found.captured_ns, found.stamp_ns, "pts", found.image)
        sink.write(Segmentation(frame, np.zeros((4, 4), np.uint8), np.eye(2, 3), 1.0), None)
    print(found.index, flush=True)
"""


def kill_at_random(folder: Path, chance: random.Random) -> int:
    """Record until a random moment, then kill -9; returns the last frame that was written for certain."""
    child = subprocess.Popen([sys.executable, "-c", RECORDER, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    at, spin = chance.randrange(2 * RATE, 5 * RATE), chance.randrange(40_000)
    written = -1
    for line in child.stdout:
        written = int(line)
        if written == at:
            for _ in range(spin):  # less than the time of a frame
                pass
            child.send_signal(signal.SIGKILL)
    assert child.wait(20) == -signal.SIGKILL
    return written


@pytest.mark.parametrize("attempt", range(2))
def test_a_kill_costs_a_second_at_most(tmp_path: Path, attempt: int, caplog: pytest.LogCaptureFixture) -> None:
    seed = random.SystemRandom().randrange(1 << 30)
    print(f"attempt {attempt}: seed {seed}")  # noqa: T201 - shown where it fails
    written = kill_at_random(tmp_path / "rec", random.Random(seed))
    before: dict[Path, bytes] = {}
    for name in ("cam0", "cam1"):
        files = segments(tmp_path / "rec" / name)
        assert [is_finished(path) for path in files[:-1]] == [True] * (len(files) - 1)
        numbers = all_numbers(files)
        assert numbers == list(range(len(numbers)))
        assert written - RATE <= len(numbers) <= written + 2
        before |= {path: path.read_bytes() for path in files[:-1]} | {files[-1]: b""}
    with caplog.at_level(logging.WARNING):
        again = Recording(tmp_path / "rec", RecordingOptions(min_free_mib=1), source="cam0")
        again.write(RATE)
        again.close()
    for path, content in before.items():
        assert path.read_bytes() == content if content else played(path)[0]
    assert len(segments(tmp_path / "rec/cam0")) == sum(path.parent.name == "cam0" for path in before) + 1
    assert not list((tmp_path / "rec").rglob("*.part"))
    for record in caplog.records:
        assert "was not finished; what was complete plays" in record.getMessage()


def test_a_segment_that_was_torn_anywhere_keeps_its_whole_fragments(tmp_path: Path) -> None:
    """A loss of power may leave any length of the file behind what was synced."""
    recording = Recording(tmp_path / "rec", RecordingOptions(min_free_mib=1))
    recording.write(3 * RATE + 5)
    (path,) = segments(tmp_path / "rec/cam")
    torn = path.read_bytes()
    recording.close()
    chance, counts = random.Random(5), set()
    for length in sorted(chance.randrange(len(torn)) for _ in range(15)):
        folder = tmp_path / f"torn{length}" / "cam"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / path.name).write_bytes(torn[:length])
        again = Recording(folder.parent, RecordingOptions(min_free_mib=1))
        again.write()
        again.close()
        old, new = segments(folder)
        assert played(new)[0] == [0]
        assert new.name > old.name
        if b"mdat" in old.read_bytes():
            numbers = played(old)[0]
            assert numbers == list(range(len(numbers)))
            counts.add(len(numbers))
    assert counts == {RATE, 2 * RATE}  # the third second is whole in the whole file only
