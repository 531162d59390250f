"""How far a build is, from what TensorRT 10 and later tell of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Phase:
    """A part of the build.

    Attributes:
        parent: the part that it lies in; None for the outermost.
        steps: that it has.
        done: of these.
    """

    parent: str | None
    steps: int
    done: int = 0


def share_done(phases: Mapping[str, Phase], name: str) -> float:
    """How much of the outermost phase is done, 0..1, as seen from one inside of it."""
    phase, share = phases.get(name), 0.0
    for _ in range(len(phases)):
        if phase is None:
            break
        share = min((phase.done + share) / max(phase.steps, 1), 1.0)
        phase = phases.get(phase.parent or "")
    return share


def progress_monitor(module: Any, progress: Callable[[float], None]) -> Any:
    """What TensorRT calls while it builds.

    Args:
        module: TensorRT, of a release that has monitors.
        progress: called with the share that is done, 0..1, in any of the library's threads; must not raise.
    """

    class Monitor(module.IProgressMonitor):  # type: ignore[misc]
        """Phases lie in each other, and may run side by side. An exception here would end the build."""

        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self._phases: dict[str, Phase] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._phases[phase_name] = Phase(parent_phase, num_steps)

        def phase_finish(self, phase_name: str) -> None:
            self._phases.pop(phase_name, None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            phase = self._phases.get(phase_name)
            if phase is not None:
                phase.done = step + 1
                progress(share_done(self._phases, phase_name))
            return True

    return Monitor()
