"""`WindowSink`: results in a window on the screen, by OpenCV's HighGUI."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from functools import cache

import cv2

from vidseg.runtime.captions import draw_hud
from vidseg.runtime.clock import SystemClock
from vidseg.runtime.errors import DeviceError
from vidseg.runtime.frame import Image, Segmentation, SourceStatus
from vidseg.runtime.sinks import MainThreadSink, StopRequested

TITLE = "vidseg"
MAX_SIZE_WH = (1280, 800)
"""A larger picture gets a smaller window at first; a person may resize it."""

STOP_KEYS = frozenset({ord("q"), ord("Q"), 27})  # 27 is Esc

PROBE_TIMEOUT_S = 10
PROBE = """
import os, resource, {modules}
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
cv2.namedWindow("probe")
os._exit(0)
"""


class WindowSink(MainThreadSink):
    """Shows each picture. Q, Esc or the window's own button end the run.

    Raises:
        DeviceError: no window can be opened here.
    """

    def __init__(self) -> None:
        obstacle = obstacle_to_window()
        if obstacle:
            raise DeviceError("no window can be opened", obstacle, "Record to a file with --sink out.mp4 instead.")
        self._is_open = False
        self._stop_requested = False
        self._last: Image | None = None

    @property
    def name(self) -> str:
        """`window://`."""
        return "window://"

    @property
    def wants_picture(self) -> bool:
        """True."""
        return True

    @property
    def queue_size(self) -> int:
        """1: the newest."""
        return 1

    @property
    def main_thread(self) -> bool:
        """True: HighGUI works there only."""
        return True

    def write(self, segmentation: Segmentation, picture: Image | None) -> None:  # noqa: ARG002 - only shown
        """Show the picture.

        Raises:
            StopRequested: a person wants the end; nothing is shown any more.
        """
        assert picture is not None
        if self._stop_requested:
            raise StopRequested
        if not self._is_open:
            self._open(picture)
        self._last = picture
        cv2.imshow(TITLE, picture)
        self.pump()

    def notify(self, status: SourceStatus) -> None:
        """Say over the last picture that it is old."""
        if self._last is not None and not self._stop_requested:
            silent_s = (SystemClock().now_ns() - status.since_ns) / 1e9
            picture = self._last.copy()
            draw_hud(picture, [f"{status.source}: {status.state} for {silent_s:.0f} s"])
            cv2.imshow(TITLE, picture)
            self.pump()

    def pump(self) -> None:
        """Handle keys and the close button.

        Raises:
            StopRequested: one of them was pressed.
        """
        if not self._is_open:
            return
        key = cv2.waitKey(1) & 0xFF
        if key in STOP_KEYS or not _is_visible():
            self._stop_requested = True
            raise StopRequested

    def close(self) -> None:
        """Close the window. Idempotent."""
        if self._is_open:
            self._is_open = False
            with contextlib.suppress(cv2.error):  # a person has closed it
                cv2.destroyWindow(TITLE)
            cv2.waitKey(1)  # the window goes when its events are handled

    def _open(self, picture: Image) -> None:
        os.environ.setdefault("QT_LOGGING_RULES", "*.warning=false")  # Qt would report missing fonts on the terminal
        cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        height, width = picture.shape[:2]
        scale = min(1.0, MAX_SIZE_WH[0] / width, MAX_SIZE_WH[1] / height)
        cv2.resizeWindow(TITLE, round(width * scale), round(height * scale))
        self._is_open = True


def _is_visible() -> bool:
    try:
        return cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) >= 1
    except cv2.error:  # Qt has let go of the last window
        return False


def display_available() -> bool:
    """True where a window can be opened."""
    return not obstacle_to_window()


@cache
def obstacle_to_window() -> str:
    """Why no window can be opened; empty where one can.

    Tried in a child process, which takes 0.3 s: Qt ends the whole process where it gets no display or lacks a library,
    and hangs where PyAV was imported before OpenCV (each wheel brings a libxcb; issue 29195 of opencv/opencv). The
    child imports them in this process's order.
    """
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if not display and sys.platform == "linux":
        return "no display (neither DISPLAY nor WAYLAND_DISPLAY is set)"
    modules = [name for name in sys.modules if name in {"av", "cv2"}]
    try:
        probe = subprocess.run(  # noqa: S603 - our own interpreter and text
            [sys.executable, "-c", PROBE.format(modules=", ".join(modules))],
            capture_output=True,
            text=True,
            check=False,
            timeout=PROBE_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        if modules[0] == "av":
            return "an OpenCV that hangs because PyAV was imported before it"
        return f"no answer from display {display}"
    if probe.returncode == 0:
        return ""
    if "not implemented" in probe.stderr:
        return "an OpenCV without windows (opencv-python-headless)"
    return f"display {display}: {(probe.stderr.strip().splitlines() or ['refused'])[0]}"
