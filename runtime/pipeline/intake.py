"""Where captured frames wait for the device: one slot a source, emptied in turn."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from vidseg.runtime.frame import Frame


@dataclass(frozen=True, slots=True)
class SlotPolicy:
    """What happens when frames come faster than they are taken.

    Attributes:
        size: frames that may wait.
        when_full: the source blocks, or the oldest frame is dropped.
        max_age_ms: a frame older than that is discarded instead of being taken; None for no limit.
    """

    size: int
    when_full: Literal["block", "drop_oldest"]
    max_age_ms: float | None = None


LATEST = SlotPolicy(1, "drop_oldest")
"""For a live source: the device always gets the newest frame."""

LOSSLESS = SlotPolicy(4, "block")
"""For a recorded source: every frame is inferred."""


def every_frame(max_age_ms: float) -> SlotPolicy:
    """For a live source of which no frame shall be missed while the device keeps up."""
    return SlotPolicy(8, "drop_oldest", max_age_ms)


REST_S = 0.002
"""For each other source, a source may rest while its newest frame waits: one alone never does. With 64 on two cores,
reading what is replaced unseen took the time that inference needed."""


@dataclass(slots=True)
class _Slot:
    policy: SlotPolicy
    frames: deque[Frame]
    taken: threading.Condition
    open: bool = True


class Intake:
    """The slots of all sources under one condition, so that one thread can wait for any of them."""

    def __init__(
        self, policies: Mapping[str, SlotPolicy], may_take: Callable[[str], bool] = lambda _source: True
    ) -> None:
        self._may_take = may_take
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._slots = {source: self._slot(policy) for source, policy in policies.items()}
        self._policies = dict(policies)
        self._turn = deque(self._slots)
        self._is_over = False

    def _slot(self, policy: SlotPolicy) -> _Slot:
        return _Slot(policy, deque(), threading.Condition(self._lock))

    def rest(self, source: str) -> None:
        """Wait while a frame of a live source waits, a few milliseconds at most: the more sources, the longer."""
        with self._changed:
            slot = self._slots[source]
            if slot.policy == LATEST and len(self._slots) > 1:
                slot.taken.wait_for(lambda: not (slot.frames and slot.open), REST_S * (len(self._slots) - 1))

    def put(self, frame: Frame) -> list[Frame]:
        """Give a frame to its source's slot, waiting where the policy says so.

        Returns the frames that are given up for it: older ones, or the frame itself when the slot is closed.
        """
        with self._changed:
            slot = self._slots[frame.source]
            if slot.policy.when_full == "block":
                self._changed.wait_for(lambda: not slot.open or len(slot.frames) < slot.policy.size)
            if not slot.open:
                return [frame]
            slot.frames.append(frame)
            self._changed.notify_all()
            return [slot.frames.popleft() for _ in range(len(slot.frames) - slot.policy.size)]

    def take(self, *, wait: bool) -> Frame | None:
        """The next frame, sources in turn; None when there is none now, or with `wait`, none will ever come."""
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._ready() or self._is_finished())
            ready = self._ready()
            if ready is None:
                return None
            frame = self._slots[ready].frames.popleft()
            self._slots[ready].taken.notify_all()
            while self._turn[-1] != ready:  # it is the last one to have its turn again
                self._turn.rotate(-1)
            self._changed.notify_all()
            return frame

    def policy(self, source: str) -> SlotPolicy:
        """The policy of a source's slot, also where the slot is gone."""
        return self._policies[source]

    def add(self, source: str, policy: SlotPolicy) -> bool:
        """A slot for one more source; False where nobody empties it any more.

        Raises:
            ValueError: there is one of that name.
        """
        with self._changed:
            if source in self._slots:
                raise ValueError(f"a slot of {source} is here")
            if not self._is_over:
                self._slots[source] = self._slot(policy)
                self._policies[source] = policy
                self._turn.append(source)
            return not self._is_over

    def remove(self, source: str) -> list[Frame]:
        """Take a slot away that is finished; returns the frames that are given up with it."""
        with self._changed:
            slot = self._slots.pop(source, None)
            if slot is None:
                return []
            self._turn.remove(source)
            self._changed.notify_all()
            return list(slot.frames)

    @property
    def finished(self) -> bool:
        """True when no frame is waiting and none can come; nothing can be added then."""
        with self._changed:
            self._is_over = self._is_over or self._is_finished()
            return self._is_over

    def wake(self) -> None:
        """What `may_take` says may have changed."""
        with self._changed:
            self._changed.notify_all()

    @property
    def any_open(self) -> bool:
        """True while some source may give more."""
        with self._changed:
            return self._is_any_open()

    def finish(self, source: str) -> None:
        """A source will give no more; what waits can still be taken."""
        with self._changed:
            if source in self._slots:
                self._slots[source].open = False
                self._slots[source].taken.notify_all()
            self._changed.notify_all()

    def abort(self) -> list[Frame]:
        """Close every slot and give back what waited."""
        with self._changed:
            leftover = [frame for slot in self._slots.values() for frame in slot.frames]
            for slot in self._slots.values():
                slot.open = False
                slot.frames.clear()
                slot.taken.notify_all()
            self._changed.notify_all()
            return leftover

    def _ready(self) -> str | None:
        """The source whose turn it is, of those that have a frame that may be taken."""
        return next((name for name in self._turn if self._slots[name].frames and self._may_take(name)), None)

    def _is_finished(self) -> bool:
        return not self._is_any_open() and not any(slot.frames for slot in self._slots.values())

    def _is_any_open(self) -> bool:
        return any(slot.open for slot in self._slots.values())
