"""A bounded queue between two threads that can be closed from either end."""

from __future__ import annotations

import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeAlias, TypeVar

T = TypeVar("T")
GroupOf: TypeAlias = Callable[[T], Hashable | None]


class Channel(Generic[T]):
    """A queue of at most `size` items. `close()` and `abort()` wake whoever waits at either end."""

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"a channel holds at least one item, not {size}")
        self._size = size
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, item: T) -> bool:
        """Append, waiting while the queue is full; False when it is closed and the item was not taken."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._size)
            if self._closed:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def put_latest(self, item: T, group_of: GroupOf[T] = lambda _item: 0) -> list[T]:
        """Append at once; returns what had to make room: the oldest of the group that has most here, or the item.

        The newest of each group stays, also where that are more than `size`: none is pushed out by others for ever
        (Longest Queue Drop; Suter, Lakshman, Stiliadis, Choudhury 1998).

        Args:
            item: what is appended; it may go itself, and does where the queue is closed.
            group_of: of what an item is one; None for items that have to stay, which others may not outnumber.
        """
        with self._changed:
            if self._closed:
                return [item]
            self._items.append(item)
            self._changed.notify_all()
            return self._without_surplus(group_of)

    def put_kept(self, item: T, group_of: GroupOf[T]) -> list[T]:
        """Append an item that has to stay: in place of one that may go, or waiting for room; returns what went."""
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._closed
                    or len(self._items) < self._size
                    or any(group_of(waiting) is not None for waiting in self._items)
                )
            )
            if self._closed:
                return [item]
            self._items.append(item)
            self._changed.notify_all()
            return self._without_surplus(group_of)

    @property
    def spare(self) -> int:
        """How many more items fit; without a limit once it is closed, because then none is kept."""
        with self._changed:
            return sys.maxsize if self._closed else self._size - len(self._items)

    def _without_surplus(self, group_of: GroupOf[T]) -> list[T]:
        given_up: list[T] = []
        while len(self._items) > self._size:
            groups = [group_of(item) for item in self._items]
            counts = Counter(group for group in groups if group is not None)
            if not counts:
                break
            ((group, count),) = counts.most_common(1)  # the first that is here, of those that have as many
            if count == 1 and None not in groups:
                break
            place = groups.index(group)
            given_up.append(self._items[place])
            del self._items[place]
        return given_up

    def put_if_room(self, item: T) -> bool:
        """Append at once, or not at all: False when the queue is full or closed."""
        with self._changed:
            if self._closed or len(self._items) >= self._size:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def get(self, timeout_s: float | None = None) -> T | None:
        """The oldest item; None when the queue is closed and empty, or the time is over (see `finished`)."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed, timeout_s)
            if not self._items:
                return None
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    @property
    def finished(self) -> bool:
        """True when nothing is left and nothing more can come."""
        with self._changed:
            return self._closed and not self._items

    def close(self) -> None:
        """Take no more; what is inside can still be had."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abort(self) -> list[T]:
        """Close, and give back what was inside."""
        with self._changed:
            self._closed = True
            leftover = list(self._items)
            self._items.clear()
            self._changed.notify_all()
            return leftover
