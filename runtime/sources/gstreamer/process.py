"""The process that plays a pipeline, from outside: with which Python, and what it is told."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from vidseg.runtime.errors import SourceRefusedError
from vidseg.runtime.secret_uri import SecretUri
from vidseg.runtime.sources.gstreamer.descriptions import nvdec_descriptions
from vidseg.runtime.sources.streams.messages import LaunchRequest
from vidseg.runtime.sources.streams.options import StreamOptions
from vidseg.runtime.sources.streams.process import DecoderProcess

CHILD = Path(__file__).with_name("child.py")

SYSTEM_PYTHON = Path("/usr/bin/python3")
"""The one that has the distribution's bindings for GStreamer; pip has none that work everywhere."""

GRACE_S = 1.0
"""Argus, behind a Jetson's camera, is left in disorder by a process that is killed."""


def play(descriptions: list[str], address: SecretUri) -> DecoderProcess:
    """Start a process that plays the first of some pipelines that fits.

    It runs in our own Python where that has PyGObject, else in the system's.

    Args:
        descriptions: see `LaunchRequest`.
        address: knows what is secret in them.

    Raises:
        SourceRefusedError: there is no Python for it.
        OSError: it cannot be started.
    """
    python = Path(sys.executable) if find_spec("gi") else SYSTEM_PYTHON
    if not python.exists():
        do = "Install it: sudo apt install python3-gi."
        raise SourceRefusedError(f"{address.name}: GStreamer needs PyGObject", f"none here, and no {python}", do)
    command = [str(python), "-I", str(CHILD)]
    return DecoderProcess(command, LaunchRequest(descriptions=descriptions), address.clean, grace_s=GRACE_S)


def nvdec_process(address: SecretUri, options: StreamOptions) -> DecoderProcess:
    """A process that decodes an RTSP stream on a Jetson.

    Raises:
        SourceRefusedError, OSError: see `play`.
    """
    return play(nvdec_descriptions(address.uri, options.transport), address)
