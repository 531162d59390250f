"""A bounded queue between two threads that can be closed from either end."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


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

    def put_latest(self, item: T) -> list[T]:
        """Append at once; returns what had to make room: the oldest items, or the item itself when closed."""
        with self._changed:
            if self._closed:
                return [item]
            self._items.append(item)
            self._changed.notify_all()
            return [self._items.popleft() for _ in range(len(self._items) - self._size)]

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
