"""Faults at random times, the same ones for the same seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

LASTS_S = 3.0
"""From the first fault to the end of the last one."""

ONLY_ONCE = {"engine fails twice", "sink fails", "disk is full"}
"""An engine that fails twice again before it has proven itself is meant to end the run; a sink is not used again."""

FAULTS = {
    "network": ("network is frozen", "network is a black hole", "network is gone", "network is damaged"),
    "server": ("server is frozen", "server is another one"),
    "usb": ("usb is pulled", "usb is paused"),
    "engine": ("engine fails once", "engine fails twice", "engine stalls"),
    "sink": ("sink fails",),
    "disk": ("disk is full",),
    "clock": ("clock jumps ahead", "clock jumps back"),
    "viewers": ("viewers are slow", "viewers are dead"),
    "spare": ("spare comes and goes",),
}
"""By what they befall: of each, there is one at a time."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong, from when to when, in seconds of the schedule."""

    begin_s: float
    end_s: float
    what: str


@dataclass(frozen=True, slots=True)
class Schedule:
    """Faults in the order of their beginnings, and how the run ends."""

    seed: int
    faults: tuple[Fault, ...]
    is_killed: bool

    def __str__(self) -> str:
        faults = "; ".join(f"{fault.begin_s:.2f}..{fault.end_s:.2f} s {fault.what}" for fault in self.faults)
        return f"seed {self.seed}: {faults}; then {'SIGKILL' if self.is_killed else 'SIGTERM'}"


def schedule(seed: int, without: Sequence[str] = ()) -> Schedule:
    """Some faults, on everything but what is named in `without`."""
    chance = random.Random(seed)
    faults: list[Fault] = []
    targets = sorted(FAULTS.keys() - set(without))
    for target in chance.sample(targets, chance.randint(3, len(targets))):
        at_s = chance.uniform(0, LASTS_S / 2)
        left = list(FAULTS[target])
        while left and at_s < LASTS_S - 0.5:
            what = chance.choice(left)
            if what in ONLY_ONCE:
                left.remove(what)
            end_s = min(at_s + chance.uniform(0.3, 1.8), LASTS_S)
            faults.append(Fault(at_s, end_s, what))
            at_s = end_s + chance.uniform(0.3, 1.0)
    return Schedule(seed, tuple(sorted(faults, key=lambda fault: fault.begin_s)), chance.random() < 0.25)
