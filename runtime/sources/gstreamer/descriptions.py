"""Pipelines as GStreamer's launch syntax writes them. Strings only: nothing is opened, and nothing has to be there.

Elements and properties of a Jetson: NVIDIA, Jetson Linux Developer Guide, Accelerated GStreamer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the process that plays a pipeline imports this file, and has neither OpenCV nor NumPy
    from vidseg.runtime.sources.capture import CameraOptions

PICTURES = "vidseg-pictures"
"""Name of the element that gives the pictures away."""

TAIL = (
    "videoconvert ! video/x-raw,format=BGR "
    f"! appsink name={PICTURES} emit-signals=true enable-last-sample=false max-buffers=1 drop=true sync=false"
)
"""From whatever raw pictures to those that are taken, the newest one, as soon as it is there."""

CSI_SIZE_WH = (1280, 720)
CSI_FPS = 30
"""What is asked for where nobody says: the image processors scale, and every usual sensor has a mode for it."""

JITTER_MS = 200
"""How long RTSP waits for a packet that is missing; without loss nothing waits."""

_FLIP_METHODS = {90: 3, 180: 2, 270: 1}
"""Of `nvvidconv`, by degrees clockwise; its 1 turns counterclockwise."""

_DIRECTIONS = {90: "90r", 180: "180", 270: "90l"}
"""Of `videoflip`: GstVideoOrientationMethod."""


def own_description(text: str) -> str:
    """A person's own pipeline, which has no sink, with ours."""
    return f"{text} ! {TAIL}"


def csi_descriptions(sensor: int, options: CameraOptions) -> list[str]:
    """Pipelines for a camera at the board's CSI connector: by NVIDIA's Argus on a Jetson, else by libcamera.

    libcamera names cameras and does not number them, so it is asked for the only one.

    Args:
        sensor: its number, from 0.
        options: size before rotation, rate and rotation; a format has no meaning here.
    """
    width, height = options.size_wh or CSI_SIZE_WH
    size = f"width={width},height={height},framerate={options.fps or CSI_FPS}/1"
    flip = f" flip-method={_FLIP_METHODS[options.rotate]}" if options.rotate else ""
    argus = (
        f"nvarguscamerasrc sensor-id={sensor} ! video/x-raw(memory:NVMM),{size} "
        f"! nvvidconv{flip} ! video/x-raw,format=BGRx ! {TAIL}"
    )
    turn = f"! videoflip video-direction={_DIRECTIONS[options.rotate]} " if options.rotate else ""
    libcamera = f"libcamerasrc ! video/x-raw,format=NV12,{size} {turn}! {TAIL}"
    return [argus] if sensor else [argus, libcamera]


def nvdec_descriptions(uri: str, transport: str) -> list[str]:
    """Pipelines for an RTSP stream by a Jetson's decoder: in H.264, else in H.265. Its sound, if any, is left alone.

    Args:
        uri: with credentials, percent-encoded.
        transport: `tcp` or `udp`.
    """
    camera = f"rtspsrc location={quoted(uri)} protocols={transport} latency={JITTER_MS} drop-on-latency=true"
    return [
        f"{camera} ! rtp{codec}depay ! {codec}parse ! video/x-{codec},stream-format=byte-stream,alignment=au "
        f"! nvv4l2decoder ! nvvidconv ! video/x-raw,format=BGRx ! {TAIL}"
        for codec in ("h264", "h265")
    ]


def quoted(value: str) -> str:
    """A property's value as the launch syntax takes it, whatever is in it."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
