"""A GPU that falls off the bus ends the run at once and non-zero, to be started again, with files whole."""

from __future__ import annotations

import signal
from pathlib import Path
from time import monotonic

import pytest

from tests.faults.network_camera import NetworkCamera
from tests.faults.running import Run
from tests.faults.subject import RATE
from tests.runtime.sinks.recording.material import all_numbers, segments

pytestmark = pytest.mark.timeout(60)


def test_a_lost_device_ends_the_run_with_its_recordings_whole(tmp_path: Path) -> None:
    with NetworkCamera() as camera, Run(tmp_path, [camera.uri]) as run:
        run.wait_for_result(camera.uri, 30)
        run.wait_for_result("steady", 30, more_than=3 * RATE)
        lost_at = monotonic()
        run.order(lose_device=True)
        end = run.wait_for(lambda said: said.get("end"), 10)
        assert monotonic() - lost_at < 5
        assert (end["error"], end["signal"]) == ("DeviceError", None)
        assert (end["unbalanced"], end["in_flight"], end["queued"], end["disorder"]) == (0, 0, {}, [])
        assert (end["threads"], end["files"], end["children"]) == ([], {}, [])
        numbers = all_numbers(segments(tmp_path / "disk/rec/steady"))
        assert numbers == sorted(set(numbers))
        assert len(numbers) >= 3 * RATE


def test_a_run_that_is_killed_leaves_no_decoder(tmp_path: Path) -> None:
    with NetworkCamera() as camera, Run(tmp_path, [camera.uri]) as run:
        run.wait_for_result(camera.uri, 30)
        (child,) = run.children()
        run.end(signal.SIGKILL)
        until = monotonic() + 5
        while Path(f"/proc/{child}/cmdline").exists() and Path(f"/proc/{child}/cmdline").read_bytes():
            assert monotonic() < until
