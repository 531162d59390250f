"""Waiting for what comes soon, without a fixed time."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(holds: Callable[[], object], timeout_s: float = 8.0) -> None:
    """Wait until something holds; fail where it does not."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come to it in time"
        time.sleep(0.02)
