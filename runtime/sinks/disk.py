"""What a disk says when it says no, and what is done about it."""

from __future__ import annotations

import errno

RETRY_S = 30.0
"""Between two tries to go on where the disk said no."""

_FULL = {errno.ENOSPC, errno.EDQUOT}


def is_full(error: Exception) -> bool:
    """It will be over when there is room again; nothing is wrong with the place."""
    return isinstance(error, OSError) and error.errno in _FULL


def reason_of(error: Exception) -> str:
    """In a few words, never empty."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
