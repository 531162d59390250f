"""What the supervisor is told, by whom: each message is put on one queue, from any thread and from signal handlers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from vidseg.runtime.pipeline.ports import SinkPort


@dataclass(frozen=True, slots=True)
class Drain:
    """End the sources and deliver what is on its way; abort after `timeout_s`."""

    timeout_s: float | None


@dataclass(frozen=True, slots=True)
class Abort:
    """Give up what is on its way; threads that are alive after `grace_s` are named as survivors."""

    grace_s: float


@dataclass(frozen=True, slots=True)
class Added:
    """A thread is started."""

    name: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A thread, or a sink of the main thread, is done."""

    name: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A thread ended with an error."""

    name: str
    error: BaseException


@dataclass(frozen=True, slots=True, eq=False)
class SinkFailed:
    """A sink was detached."""

    port: SinkPort
    error: BaseException

    @property
    def name(self) -> str:
        """Of the part that failed, as `Ended` has it."""
        return f"sink {self.port.name}"


Command: TypeAlias = Drain | Abort | Added | Ended | Failed | SinkFailed
