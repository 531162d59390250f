"""From a URI to a source."""

from __future__ import annotations

from pathlib import Path

from vidseg.runtime.errors import UsageError
from vidseg.runtime.sources import Source

KNOWN = "scene://street, a video file, an image, or a folder of images"


def source_from_uri(uri: str, *, realtime: bool = False) -> Source:
    """The source that a URI names. Nothing is opened, and what it needs is imported, only now.

    Args:
        uri: `scene://street` (a live one, or without pauses with `?pace=max`), or the path of a video file, an image
            or a folder of images.
        realtime: files and folders at their own pace instead of as fast as they are read.

    Raises:
        UsageError: no source is named like that.
    """
    scheme, separator, _ = uri.partition("://")
    if separator:
        if scheme != "scene":
            raise UsageError(f"there are no {scheme}:// sources", "", f"Use {KNOWN}.")  # the rest may hold a password
        from vidseg.runtime.sources.scene import SceneSource

        return SceneSource.from_uri(uri)
    if not uri:
        raise UsageError("a source has no name", "an empty one", f"Use {KNOWN}.")
    path = Path(uri)
    if path.is_char_device() or path.is_block_device():
        raise UsageError(f"{uri}: devices are no sources yet", "", f"Use {KNOWN}.")
    from vidseg.runtime.sources.folder import FolderSource
    from vidseg.runtime.sources.image import IMAGE_SUFFIXES

    if uri.endswith("/") or path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES:
        return FolderSource(path, realtime=realtime)
    from vidseg.runtime.sources.video import VideoSource

    return VideoSource(path, realtime=realtime)
