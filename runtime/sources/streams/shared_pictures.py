"""Memory that two processes share, with places for pictures."""

from __future__ import annotations

import fcntl
import mmap
import os

_ADD_SEALS, _GET_SEALS = 1033, 1034
_SEAL, _SHRINK, _GROW = 1, 2, 4
"""Of `linux/fcntl.h`. What cannot shrink never ends a reader with SIGBUS."""


class SharedPictures:
    """Places for pictures of one size, (h, w, 3) uint8 BGR. `close()` is idempotent; views must be gone before.

    Attributes:
        descriptor: of the memory, for the other process.
    """

    def __init__(self, descriptor: int, size_wh: tuple[int, int], count: int) -> None:
        self.descriptor = descriptor
        self._picture_bytes = size_wh[0] * size_wh[1] * 3
        self._count = count
        self._memory = mmap.mmap(descriptor, self._picture_bytes * count)

    @classmethod
    def create(cls, size_wh: tuple[int, int], count: int) -> SharedPictures:
        """New memory.

        Raises:
            OSError: there is no room for it.
        """
        descriptor = os.memfd_create("pictures", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, size_wh[0] * size_wh[1] * 3 * count)
            fcntl.fcntl(descriptor, _ADD_SEALS, _SHRINK | _GROW | _SEAL)
            return cls(descriptor, size_wh, count)
        except BaseException:
            os.close(descriptor)
            raise

    @classmethod
    def attach(cls, descriptor: int, size_wh: tuple[int, int], count: int) -> SharedPictures:
        """The memory of another process, which is not trusted. Takes the descriptor, closes it where that fails.

        Raises:
            ValueError: it is too small, or may become so.
        """
        try:
            needed = size_wh[0] * size_wh[1] * 3 * count
            if os.fstat(descriptor).st_size < needed or not fcntl.fcntl(descriptor, _GET_SEALS) & _SHRINK:
                raise ValueError("shared memory that is smaller than what is to be in it")
            return cls(descriptor, size_wh, count)
        except BaseException:
            os.close(descriptor)
            raise

    def place(self, number: int) -> memoryview:
        """The bytes of a picture, row by row, without a copy.

        Raises:
            ValueError: there is no such place.
        """
        if not 0 <= number < self._count:
            raise ValueError(f"no place {number}")
        first = number * self._picture_bytes
        return memoryview(self._memory)[first : first + self._picture_bytes]

    def close(self) -> None:
        """Let go of the memory."""
        if self.descriptor >= 0:
            self._memory.close()
            os.close(self.descriptor)
            self.descriptor = -1
