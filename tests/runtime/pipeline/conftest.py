"""Around every test of the pipeline."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    yield
    left = [thread for thread in threading.enumerate() if thread.name.startswith("vidseg")]
    for thread in left:
        thread.join(5)
    assert not [thread.name for thread in left if thread.is_alive()]
