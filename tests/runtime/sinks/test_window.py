"""A window that cannot be closed, or that takes the process with it where there is no display, ends a run badly."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import pytest

ROOT = Path(__file__).parents[3]

REFUSED = """
from vidseg.runtime.errors import DeviceError
from vidseg.runtime.sinks.window import WindowSink, display_available
print(display_available())
try:
    WindowSink()
except DeviceError as error:
    print(error.exit_code, error)
"""

SHOWING = """
from vidseg.runtime.sinks import MainThreadSink, StopRequested
from vidseg.runtime.sinks.window import WindowSink, display_available
from tests.media import moving_blocks, segmentation_of
assert display_available()
sink: MainThreadSink = WindowSink()
sink.pump()
picture = moving_blocks(1, (320, 240))[0]
sink.write(segmentation_of(picture), picture)
print("shown", flush=True)
try:
    while True:
        sink.pump()
except StopRequested:
    pass
try:
    sink.write(segmentation_of(picture), picture)
except StopRequested:
    print("stopped", flush=True)
sink.close()
sink.close()
"""


def _environment(display: str | None) -> dict[str, str]:
    bare = {name: value for name, value in os.environ.items() if name not in {"DISPLAY", "WAYLAND_DISPLAY"}}
    return bare if display is None else bare | {"DISPLAY": display}


@pytest.mark.parametrize(
    ("display", "got"), [(None, "no display"), (":12345", "display :12345: qt.qpa.xcb: could not connect")]
)
def test_without_a_display_one_line_says_so(display: str | None, got: str) -> None:
    child = subprocess.run(
        [sys.executable, "-c", REFUSED],
        env=_environment(display),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    available, message = child.stdout.splitlines()
    assert available == "False"
    assert message.startswith("6 no window can be opened: got ")
    assert got in message or "opencv-python-headless" in message
    assert message.endswith("Record to a file with --sink out.mp4 instead.")
    assert child.stderr == ""


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    """A screen that nobody sees."""
    for program in ("Xvfb", "xdotool"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (apt-get install xvfb xdotool)")
    if re.search(r"GUI: +NONE", cv2.getBuildInformation()):
        pytest.skip("this OpenCV has no windows (opencv-python-headless)")
    reader, writer = os.pipe()
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", "800x600x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[writer], stderr=subprocess.DEVNULL)
    os.close(writer)
    with os.fdopen(reader) as file:
        number = file.readline().strip()  # comes when the server is ready
    yield f":{number}"
    server.terminate()
    server.wait(20)


def _xdotool(display: str, *arguments: str) -> str:
    return subprocess.run(
        ["xdotool", *arguments], env=_environment(display), capture_output=True, text=True, check=True, timeout=20
    ).stdout


def _window_id(display: str) -> int:
    return int(_xdotool(display, "search", "--sync", "--name", "^vidseg$").split()[-1])


def _press(display: str, key: str) -> None:
    _xdotool(display, "windowfocus", "--sync", str(_window_id(display)))
    _xdotool(display, "key", key)


class _ClientMessage(ctypes.Structure):
    """XClientMessageEvent of Xlib.h, with room for the whole union."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("serial", ctypes.c_ulong),
        ("send_event", ctypes.c_int),
        ("display", ctypes.c_void_p),
        ("window", ctypes.c_ulong),
        ("message_type", ctypes.c_ulong),
        ("format", ctypes.c_int),
        ("data", ctypes.c_long * 5),
        ("padding", ctypes.c_long * 24),
    )


def _press_close_button(display: str, _: str) -> None:
    """What a window manager sends: WM_DELETE_WINDOW."""
    xlib = ctypes.CDLL("libX11.so.6")
    xlib.XOpenDisplay.restype = ctypes.c_void_p
    xlib.XInternAtom.restype = ctypes.c_ulong
    connection = ctypes.c_void_p(xlib.XOpenDisplay(display.encode()))
    protocols, delete = (xlib.XInternAtom(connection, name, 0) for name in (b"WM_PROTOCOLS", b"WM_DELETE_WINDOW"))
    window = _window_id(display)
    message = _ClientMessage(type=33, window=window, message_type=protocols, format=32, data=(delete, 0, 0, 0, 0))
    xlib.XSendEvent(connection, ctypes.c_ulong(window), 0, ctypes.c_long(0), ctypes.byref(message))
    xlib.XCloseDisplay(connection)


@pytest.mark.parametrize(
    ("act", "key"), [(_press, "q"), (_press, "Escape"), (_press_close_button, "")], ids=["q", "Esc", "close button"]
)
def test_a_person_ends_the_run(display: str, act: Callable[[str, str], None], key: str) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", SHOWING],
        cwd=ROOT,
        env=_environment(display),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "shown\n"
        act(display, key)
        output, errors = child.communicate(timeout=30)
    finally:
        child.kill()
        child.wait()
    assert (output, errors, child.returncode) == ("stopped\n", "", 0)
