"""Telling systemd that a service is ready, how it is, and that it is not stuck (`sd_notify(3)`, `Type=notify`)."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

from vidseg.runtime.pipeline.statistics import Statistics
from vidseg.runtime.pipeline.status import status_line

log = logging.getLogger(__name__)

EXTENSION_S = 60
"""By which the time of a start is extended while no camera gives anything."""


class Notifier:
    """Sends what systemd wants to know; does nothing where it did not start this process.

    Its watchdog is fed only while frames progress: a result was handed over since the last time, or no good frame was
    captured, because cameras are away and opened again. A process that captures and gives nothing is started anew.

    Args:
        environment: with `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`, as `os.environ`.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._is_ready = False
        self._last = (0, 0)
        own = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        text = environment.get("WATCHDOG_USEC", "")
        self._watchdog_s = int(text) / 1e6 if own and text.isdecimal() and int(text) > 0 else None

    @property
    def is_wanted(self) -> bool:
        """True where systemd listens."""
        return self._address.startswith(("/", "@"))

    @property
    def interval_s(self) -> float:
        """How often `report` has to be called: thrice in the watchdog's time, and at least every 10 s."""
        return min(10.0, (self._watchdog_s or 30.0) / 3)

    def report(self, statistics: Statistics) -> None:
        """Tell how the run is; that it is ready with its first result."""
        if not self.is_wanted:
            return
        ledger = statistics.ledger
        unusable = sum(ledger.dropped.get(cause, 0) for cause in ("bad_frame", "missed"))
        now = (ledger.captured - unusable, ledger.resolved)
        said = [f"STATUS={status_line(statistics).strip()}"]
        if ledger.resolved and not self._is_ready:
            self._is_ready = True
            said.append("READY=1")
        if not self._is_ready and now[0] == 0:  # no camera is there: that is no start that hangs
            said.append(f"EXTEND_TIMEOUT_USEC={EXTENSION_S * 1_000_000}")
        if self._watchdog_s is not None and (now[1] > self._last[1] or now[0] == self._last[0]):
            said.append("WATCHDOG=1")
        self._last = now
        self._send("\n".join(said))

    def stopping(self) -> None:
        """Tell that the end is meant."""
        if self.is_wanted:
            self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
                connection.setblocking(False)
                connection.sendto(text.encode(), address)
        except OSError as error:
            log.info("systemd was not told: %s", error)
