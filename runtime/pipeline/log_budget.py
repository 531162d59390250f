"""How much the log says of one source: a camera that comes and goes for months must not fill the disk."""

from __future__ import annotations

import logging

from vidseg.runtime.clock import Clock


class LogBudget:
    """Warnings, of which a few may come at once, and then one in a while; the others are counted.

    Args:
        log: where they go.
        name: of the source.
        clock: for the times.
        at_once: lines that may come one behind the other.
        interval_s: time in which one more is earned.
    """

    def __init__(self, log: logging.Logger, name: str, clock: Clock, *, at_once: int, interval_s: float) -> None:
        self._log = log
        self._name = name
        self._clock = clock
        self._most_ns = round(at_once * interval_s * 1e9)
        self._cost_ns = round(interval_s * 1e9)
        self._saved_ns = self._most_ns
        self._last_ns = clock.now_ns()
        self._left_out = 0

    def warn(self, line: str) -> None:
        """Say it, and how many were left out before; or leave it out."""
        now_ns = self._clock.now_ns()
        self._saved_ns = min(self._saved_ns + now_ns - self._last_ns, self._most_ns)
        self._last_ns = now_ns
        if self._saved_ns < self._cost_ns:
            self._left_out += 1
            return
        self._saved_ns -= self._cost_ns
        self._log.warning("%s%s", line, f" ({self._left_out} lines were left out before.)" if self._left_out else "")
        self._left_out = 0

    def close(self) -> None:
        """Say how many were left out since."""
        if self._left_out:
            self._log.warning("%s: %d more lines like that were left out", self._name, self._left_out)
            self._left_out = 0
