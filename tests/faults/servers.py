"""A real RTSP server in a process of its own, to be frozen, killed and started again."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from pathlib import Path
from types import TracebackType

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


class RtspServer:
    """Serves rtsp://127.0.0.1:PORT/live.

    Args:
        size_wh: of the picture.
        credentials: user and password that it wants.
        port: 0 for any that is free.
    """

    def __init__(
        self, size_wh: tuple[int, int] = (320, 240), credentials: tuple[str, str] | None = None, port: int = 0
    ) -> None:
        self._size = f"{size_wh[0]}x{size_wh[1]}"
        self._credentials = credentials
        self._wanted_port = port

    def __enter__(self) -> RtspServer:
        command = [SYSTEM_PYTHON, str(SERVER), str(self._wanted_port), self._size, "15", *(self._credentials or ())]
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
        return f"rtsp://{user}127.0.0.1:{self.port}/live"

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


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
