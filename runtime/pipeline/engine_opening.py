"""Opening a bundle's engine in the thread that infers: it says how far it is, and ends where the run does."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, runtime_checkable

from vidseg.runtime.clock import Clock, SystemClock
from vidseg.runtime.engines import Engine
from vidseg.runtime.engines.opening import GpuUse
from vidseg.runtime.errors import OpeningCancelledError

log = logging.getLogger(__name__)

SAID_EVERY_NS = 15_000_000_000
"""How often the log says how far a plan is that is built now."""


@runtime_checkable
class CancellableOpener(Protocol):
    """Opens an engine, which may take minutes, and can be told that nobody waits for it any more."""

    def __call__(self) -> Engine:
        """Open it.

        Raises:
            OpeningCancelledError: it was cancelled.
        """

    def cancel(self) -> None:
        """End a call that is under way, soon, where it is one that takes long. From any thread; returns at once."""


class SaidNowAndThen:
    """A `Progress` of a plan that is built, for the log.

    Args:
        clock: for the times.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._said_ns = self._clock.now_ns()

    def __call__(self, share: float) -> None:
        """Say how much is done, where nothing was said for a while."""
        now_ns = self._clock.now_ns()
        if now_ns - self._said_ns >= SAID_EVERY_NS:
            self._said_ns = now_ns
            log.warning("still making the engine ready%s", f": {share:.0%} of its plan is built" if share else "")


class EngineOpener:
    """A `CancellableOpener`: a build of a plan can be cancelled, nothing else takes long.

    Args:
        open_engine: opens it, for the use that it is given.
        gpu: what the engine is for.
        clock: for the log.
    """

    def __init__(self, open_engine: Callable[[GpuUse], Engine], gpu: GpuUse, clock: Clock | None = None) -> None:
        self._open_engine = open_engine
        self._gpu = gpu
        self._clock = clock
        self._cancelled = threading.Event()

    def __call__(self) -> Engine:
        """See `CancellableOpener`."""
        say = SaidNowAndThen(self._clock)

        def progress(share: float) -> None:
            if self._cancelled.is_set():
                raise OpeningCancelledError("the plan is not built to its end", "the end of the run")
            say(share)

        return self._open_engine(replace(self._gpu, progress=progress))

    def cancel(self) -> None:
        """See `CancellableOpener`."""
        self._cancelled.set()
