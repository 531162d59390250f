"""Whether this machine has GStreamer, with its bindings and some elements, for the Python that plays its pipelines."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from importlib.util import find_spec

import pytest

from vidseg.runtime.sources.gstreamer.process import SYSTEM_PYTHON

CHECK = (
    "import sys, gi; gi.require_version('Gst', '1.0'); from gi.repository import Gst; Gst.init(None); "
    "sys.exit(not all(Gst.ElementFactory.find(name) for name in sys.argv[1:]))"
)
PACKAGES = "apt install python3-gi gir1.2-gstreamer-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good"


@cache
def _has(*elements: str) -> bool:
    python = sys.executable if find_spec("gi") else str(SYSTEM_PYTHON)
    try:
        done = subprocess.run([python, "-I", "-c", CHECK, *elements], capture_output=True, check=False, timeout=60)
    except FileNotFoundError:
        return False
    return done.returncode == 0


needs_gstreamer = pytest.mark.skipif(
    not _has("videotestsrc", "videoconvert", "appsink", "videoflip"), reason=f"no GStreamer: {PACKAGES}"
)
needs_decoder = pytest.mark.skipif(
    not _has("rtspsrc", "rtph264depay", "h264parse", "openh264dec"),
    reason="no H.264 decoder for GStreamer: apt install gstreamer1.0-plugins-bad",
)
