"""From a URI to a source."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from vidseg.runtime.errors import UsageError, VidsegError
from vidseg.runtime.sources import Source

KNOWN = (
    "scene://street, a video file, an image, a folder of images, a camera such as /dev/video0 or csi://0, "
    "rtsp://host/path, or gst:PIPELINE"
)

CAMERA_PREFIXES = ("/dev/video", "/dev/v4l/")


def source_from_uri(uri: str, *, realtime: bool = False) -> Source:
    """The source that a URI names. Nothing is opened, and what it needs is imported, only now.

    Args:
        uri: `scene://street` (a live one, or without pauses with `?pace=max`), the path of a video file, an image or a
            folder of images, a camera's device, such as `/dev/video0` or `/dev/v4l/by-id/NAME`, which takes
            `?size=1280x720&fps=30&format=MJPG&rotate=90`, or a live stream: `rtsp://user:password@host/path`, `http://`
            and others, with `#transport=udp&stall_s=5`, a camera at the board's connector: `csi://0#size=1280x720`, or
            a pipeline of GStreamer's without its sink: `gst:v4l2src ! jpegdec`.
        realtime: files and folders at their own pace instead of as fast as they are read.

    Raises:
        UsageError: no source is named like that, or an option of it is not understood.
    """
    try:
        return _source(uri, realtime=realtime)
    except VidsegError:
        raise
    except (OSError, ValueError) as error:  # a path that the system does not take
        reason = os.strerror(getattr(error, "errno", 0) or errno.EINVAL)
        raise UsageError("no source can have this name", reason, f"Use {KNOWN}.") from None


def _source(uri: str, *, realtime: bool) -> Source:
    if uri.startswith("gst:"):  # a description may have addresses in it
        from vidseg.runtime.sources.gstreamer.sources import gst_source

        return gst_source(uri)
    scheme, separator, _ = uri.partition("://")
    if separator:
        return _by_scheme(scheme, uri)
    if not uri:
        raise UsageError("a source has no name", "an empty one", f"Use {KNOWN}.")
    if uri.startswith(CAMERA_PREFIXES) or Path(uri.partition("?")[0]).is_char_device():
        from vidseg.runtime.sources.camera import CameraSource

        return CameraSource.from_uri(uri)
    if re.search(r":.*@", uri) and not Path(uri).exists():
        raise UsageError("an address is not understood", "", f"Use {KNOWN}.")  # nearly one, with a password
    return _recorded(Path(uri), uri, realtime=realtime)


def _by_scheme(scheme: str, uri: str) -> Source:
    if scheme == "scene":
        from vidseg.runtime.sources.scene import SceneSource

        return SceneSource.from_uri(uri)
    if scheme == "csi":
        from vidseg.runtime.sources.gstreamer.sources import csi_source

        return csi_source(uri)
    from vidseg.runtime.sources.streams.source import PROTOCOLS, StreamSource

    if scheme.lower() in PROTOCOLS:
        return StreamSource.from_uri(uri)
    kind = f"{scheme}:// sources" if re.fullmatch(r"[A-Za-z]{1,8}", scheme) else "such sources"
    raise UsageError(f"there are no {kind}", "", f"Use {KNOWN}.")  # the rest may hold a password


def _recorded(path: Path, uri: str, *, realtime: bool) -> Source:
    if path.is_block_device():
        raise UsageError(f"{uri}: a disk is no source", "", f"Use {KNOWN}.")
    from vidseg.runtime.sources.folder import FolderSource
    from vidseg.runtime.sources.image import IMAGE_SUFFIXES

    if uri.endswith("/") or path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES:
        return FolderSource(path, realtime=realtime)
    from vidseg.runtime.sources.video import VideoSource

    return VideoSource(path, realtime=realtime)
