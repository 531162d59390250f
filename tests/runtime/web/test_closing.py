"""A run that ends has to end: no port that stays taken, no thread, nothing left open."""

from __future__ import annotations

import gc
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.runtime.web.site import CLASSES, Site, site
from tests.waiting import until
from vidseg.runtime.errors import SinkError
from vidseg.runtime.sinks.web import WebSink

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")


def _open() -> tuple[int, int]:
    """How many threads and descriptors there are."""
    gc.collect()
    return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_twenty_pages_leave_nothing_whoever_was_there() -> None:
    with site() as served:  # what the libraries keep for good
        served.request("/metrics")
    before = _open()
    for number in range(20):
        served = Site()
        with ExitStack() as stack:
            served.write(0, size_wh=(640, 480))
            if number % 4 == 0:
                for path in ("/streams/front.mjpg", "/api/events", "/health/live"):
                    stack.enter_context(served.connect(path)).recv(1)
            started = time.monotonic()
            served.sink.close()
            assert time.monotonic() < started + 2
            served.sink.close()
            with pytest.raises(OSError, match="refused"):
                socket.create_connection(("127.0.0.1", served.port), timeout=2)
    until(lambda: _open() <= before)


def test_after_the_end_a_result_is_an_error_of_the_sink() -> None:
    served = Site()
    served.sink.close()
    with pytest.raises(SinkError, match="has ended"):
        served.write(0)


def test_a_port_that_is_taken_is_one_clear_line() -> None:
    with site() as served, pytest.raises(SinkError) as caught:
        WebSink(f"web://127.0.0.1:{served.port}", CLASSES)
    assert str(caught.value) == (
        f"web://127.0.0.1:{served.port}: the page cannot be served: got Address already in use. "
        "Take another port, or 0 for any that is free."
    )


def test_the_same_port_is_free_at_once() -> None:
    with site() as served:
        served.request("/health/live")
        port = served.port
    again = WebSink(f"web://127.0.0.1:{port}", CLASSES)
    again.close()
