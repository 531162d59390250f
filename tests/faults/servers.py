"""Real RTSP servers in processes of their own, to be frozen, killed and started again."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Literal, TypeVar

import pytest

SYSTEM_PYTHON = "/usr/bin/python3"
SERVER = Path(__file__).with_name("rtsp_server.py")
BINDINGS = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"


def _missing() -> str:
    if shutil.which(SYSTEM_PYTHON) is None:
        return "no Python of the system's"
    found = subprocess.run([SYSTEM_PYTHON, "-c", BINDINGS], capture_output=True, check=False, timeout=30)
    return "no gst-rtsp-server: apt install gir1.2-gst-rtsp-server-1.0" if found.returncode else ""


MISSING = _missing()
needs_rtsp_server = pytest.mark.skipif(bool(MISSING), reason=MISSING)


PICTURE = (
    "( videotestsrc is-live=true pattern=ball ! video/x-raw,width={},height={},framerate={}/1,format=I420 "
    "! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 ! rtph264pay name=pay0 pt=96 config-interval=1 )"
)
TAKE = (
    "( rtph264depay name=depay0 ! h264parse ! video/x-h264,stream-format=byte-stream,alignment=au "
    "! filesink sync=false append=true buffer-mode=unbuffered location={} )"
)
RATE = 15

ServerT = TypeVar("ServerT", bound="_Server")


class _Server:
    """A server at rtsp://127.0.0.1:PORT/live; a context manager."""

    def __init__(
        self, mode: Literal["play", "record"], description: str, credentials: tuple[str, str] | None, port: int
    ) -> None:
        self._arguments = [str(port), mode, description, *(credentials or ())]
        self._credentials = credentials

    def __enter__(self: ServerT) -> ServerT:
        command = [SYSTEM_PYTHON, str(SERVER), *self._arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def uri(self) -> str:
        user = ":".join(self._credentials) + "@" if self._credentials else ""
        return f"rtsp://{user}{self.place}"

    @property
    def place(self) -> str:
        """The address without scheme and credentials."""
        return f"127.0.0.1:{self.port}/live"

    def freeze(self) -> None:
        """It keeps its connections, and sends nothing any more."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """It is gone."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class RtspServer(_Server):
    """Serves live H.264, 15 pictures a second.

    Args:
        size_wh: of the picture.
        credentials: user and password that it wants.
        port: 0 for any that is free.
    """

    def __init__(
        self, size_wh: tuple[int, int] = (320, 240), credentials: tuple[str, str] | None = None, port: int = 0
    ) -> None:
        super().__init__("play", PICTURE.format(*size_wh, RATE), credentials, port)


class RecordingServer(_Server):
    """Takes a stream, and appends it to a file, as raw H.264.

    Args:
        path: of the file.
        credentials: user and password that it wants.
        port: 0 for any that is free.
    """

    def __init__(self, path: Path, credentials: tuple[str, str] | None = None, port: int = 0) -> None:
        super().__init__("record", TAKE.format(path), credentials, port)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
