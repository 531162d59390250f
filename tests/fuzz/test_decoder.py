"""A decoder that a camera's nonsense has turned: what it sends is a picture or one error, and no password."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from tests.fuzz.campaign import Campaign
from tests.fuzz.invariant import check_error, check_line, limited
from vidseg.runtime.clock import SystemClock
from vidseg.runtime.errors import FrameError, SourceLostError, SourceRefusedError, VidsegError
from vidseg.runtime.frame import Frame
from vidseg.runtime.secret_uri import SecretUri, secret_uri
from vidseg.runtime.sources.streams.messages import Request
from vidseg.runtime.sources.streams.options import StreamOptions
from vidseg.runtime.sources.streams.process import DecoderProcess
from vidseg.runtime.sources.streams.source import StreamSource

ROOT = Path(__file__).parents[2]
CHILD = (sys.executable, "-m", "tests.fuzz.hostile_child")
PASSWORD = "zebra7@quokka8/ocelot9?#["
SECRETS = (*PASSWORD.replace("@", " ").replace("/", " ").split()[:2], "ocelot9", "jaguar5")
URI = f"rtsp://me:{PASSWORD}@camera:554/live?token=jaguar5"
PACKETS = 40


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _source(seed: str) -> StreamSource:
    def start(address: SecretUri, _: StreamOptions) -> DecoderProcess:
        request = Request(uri=address.uri, options={"seed": seed, "count": str(PACKETS)})
        return DecoderProcess(CHILD, request, address.clean)

    return StreamSource(secret_uri(URI), StreamOptions(open_s=30, stall_s=30), start)


def _next(source: StreamSource) -> Frame | VidsegError | None:
    try:
        return source.read()
    except (FrameError, SourceLostError, SourceRefusedError) as error:
        check_error(error, SECRETS)
        return error


@pytest.mark.timeout(110)
def test_packets(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process for some packets: what is wrong with one of them is not to hide the next."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for _ in campaign.cases("decoder", 2):
        before = _descriptors()
        source = _source(campaign.current)
        with limited():
            source.open(SystemClock(), threading.Event())
            _read_all(source)
        source.close()
        assert _descriptors() == before


def _read_all(source: StreamSource) -> None:
    for _ in range(PACKETS + 2):
        found = _next(source)
        if isinstance(found, Frame):
            assert found.image.ndim == 3
            check_line(found.source, SECRETS)
        elif isinstance(found, SourceLostError) and ("decoder ended" in str(found) or "got done" in str(found)):
            return
    raise AssertionError("it has not ended")
