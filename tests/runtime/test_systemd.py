"""A service that is stuck has to be started anew, and one whose cameras are away must not be."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from vidseg.runtime.pipeline.ledger import LedgerSnapshot
from vidseg.runtime.pipeline.statistics import Statistics
from vidseg.runtime.systemd import Notifier

STATISTICS = Statistics(0, 0, 0, 0, float("nan"), float("nan"), {}, LedgerSnapshot(0, 0, 0))


def at(captured: int, resolved: int) -> Statistics:
    return replace(STATISTICS, ledger=LedgerSnapshot(captured, resolved, captured - resolved))


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@vidseg-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name.replace("@", "\0"))
        listener.settimeout(10)
        yield listener, name


def test_it_is_ready_with_the_first_result_and_its_watchdog_is_fed_while_frames_progress(
    systemd: tuple[socket.socket, str],
) -> None:
    listener, name = systemd
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "30000000"})
    assert notifier.is_wanted
    assert notifier.interval_s == 10
    said = []
    for statistics in (at(0, 0), at(5, 0), at(9, 4), at(20, 4), at(30, 4), at(30, 4), at(31, 5)):
        notifier.report(statistics)
        lines = listener.recv(4096).decode().splitlines()
        assert lines[0].startswith("STATUS=")
        said.append([line for line in lines if not line.startswith("STATUS=")])
    fed = ["WATCHDOG=1"]
    away = "EXTEND_TIMEOUT_USEC=60000000"  # a start that waits for a camera is none that hangs
    assert said == [[away, *fed], [], ["READY=1", *fed], [], [], fed, fed]
    notifier.stopping()
    assert listener.recv(4096) == b"STOPPING=1"


def test_one_camera_with_damaged_frames_does_not_starve_the_watchdog_of_all(systemd: tuple[socket.socket, str]) -> None:
    listener, name = systemd
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "30000000"})
    for bad in (0, 10, 20):
        damaged = LedgerSnapshot(5 + bad, 5, 0, {"bad_frame": bad})
        notifier.report(replace(STATISTICS, ledger=damaged))
        assert "WATCHDOG=1" in listener.recv(4096).decode()


def test_without_systemd_or_with_one_that_is_gone_nothing_happens() -> None:
    for environment in ({}, {"NOTIFY_SOCKET": "nonsense"}, {"NOTIFY_SOCKET": "/none/there", "WATCHDOG_USEC": "x"}):
        notifier = Notifier(environment)
        notifier.report(at(1, 1))
        notifier.stopping()
    assert not Notifier({}).is_wanted


def test_a_watchdog_of_another_process_is_not_fed(systemd: tuple[socket.socket, str]) -> None:
    listener, name = systemd
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"})
    notifier.report(at(1, 1))
    assert "WATCHDOG" not in listener.recv(4096).decode()
