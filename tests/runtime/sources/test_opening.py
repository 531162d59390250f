"""A URI that opens something else than it names runs a model on the wrong thing."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from vidseg.runtime.errors import UsageError
from vidseg.runtime.sources.camera import CameraSource
from vidseg.runtime.sources.folder import FolderSource
from vidseg.runtime.sources.opening import source_from_uri
from vidseg.runtime.sources.scene import SceneSource
from vidseg.runtime.sources.streams.source import StreamSource
from vidseg.runtime.sources.video import VideoSource


def test_each_uri_opens_its_kind(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "x.png"), np.zeros((4, 4, 3), np.uint8))
    kinds = {
        "scene://street?frames=3": SceneSource,
        "drive.mp4": VideoSource,
        "no suffix": VideoSource,
        f"{tmp_path}": FolderSource,
        "missing/": FolderSource,
        f"{tmp_path}/x.png": FolderSource,
        "missing.JPG": FolderSource,
        "/dev/video0": CameraSource,
        "rtsp://user:secret@camera/1": StreamSource,
        "HTTP://camera/live.ts": StreamSource,
        "/dev/video12?size=1280x720&rotate=90": CameraSource,
        "/dev/v4l/by-id/usb-046d_HD_Pro_Webcam-video-index0": CameraSource,
        "/dev/null": CameraSource,  # any character device may be a camera by another name; opening it tells
        "/dev/null?fps=30": CameraSource,
    }
    for uri, kind in kinds.items():
        assert type(source_from_uri(uri)) is kind, uri


def test_a_name_is_the_path_that_was_given() -> None:
    assert source_from_uri("a/drive.mp4").name == "a/drive.mp4"
    assert source_from_uri("/dev/video0?fps=30").name == "/dev/video0"


@pytest.mark.parametrize("uri", ["gopher://user:secret@camera/1", "scnee://street", ""])
def test_what_is_not_understood_is_refused_with_what_is(uri: str) -> None:
    with pytest.raises(UsageError, match="scene://street, a video file") as caught:
        source_from_uri(uri)
    assert "secret" not in str(caught.value)
    assert caught.value.exit_code == 2
