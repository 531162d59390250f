"""A wrong word in a pipeline shows only on a board that we had not: each is compared, and launched with stand-ins."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from tests.faults.servers import RtspServer, needs_rtsp_server
from tests.runtime.sources.gstreamer.bindings import needs_decoder, needs_gstreamer
from vidseg.runtime.clock import SystemClock
from vidseg.runtime.errors import SourceLostError, SourceRefusedError
from vidseg.runtime.frame import Image
from vidseg.runtime.secret_uri import SecretUri, secret_uri
from vidseg.runtime.sources.capture import CameraOptions
from vidseg.runtime.sources.gstreamer.descriptions import csi_descriptions, nvdec_descriptions, own_description
from vidseg.runtime.sources.gstreamer.process import play
from vidseg.runtime.sources.streams.options import StreamOptions
from vidseg.runtime.sources.streams.process import DecoderProcess
from vidseg.runtime.sources.streams.source import StreamSource

TAIL = (
    "videoconvert ! video/x-raw,format=BGR ! appsink name=vidseg-pictures emit-signals=true enable-last-sample=false "
    "max-buffers=1 drop=true sync=false"
)
SIZED = CameraOptions(size_wh=(80, 60), fps=25)
pytestmark = pytest.mark.timeout(60)

JETSON = {
    "nvarguscamerasrc sensor-id=0": "videotestsrc is-live=true pattern=smpte75",
    "(memory:NVMM)": "",
    "nvvidconv flip-method=3": "videoflip video-direction=90r",
    "nvvidconv flip-method=2": "videoflip video-direction=180",
    "nvvidconv flip-method=1": "videoflip video-direction=90l",
    "nvvidconv": "videoconvert",
    "nvv4l2decoder": "openh264dec",
}
RASPBERRY = {"libcamerasrc": "videotestsrc is-live=true pattern=smpte75"}


def stood_in(description: str, stand_ins: dict[str, str]) -> str:
    for name, software in stand_ins.items():
        description = description.replace(name, software)
    return description


def first_picture(descriptions: list[str]) -> Image:
    source = StreamSource(SecretUri("", "test", ()), StreamOptions(), lambda address, _: play(descriptions, address))
    source.open(SystemClock(), threading.Event())
    frame = source.read()
    source.close()
    assert frame is not None
    return frame.image


def test_a_pipeline_of_ones_own_ends_with_our_sink() -> None:
    assert own_description("v4l2src ! jpegdec") == f"v4l2src ! jpegdec ! {TAIL}"


def test_csi_cameras_are_asked_of_argus_else_of_libcamera() -> None:
    assert csi_descriptions(0, CameraOptions()) == [
        (
            "nvarguscamerasrc sensor-id=0 ! video/x-raw(memory:NVMM),width=1280,height=720,framerate=30/1 "
            f"! nvvidconv ! video/x-raw,format=BGRx ! {TAIL}"
        ),
        f"libcamerasrc ! video/x-raw,format=NV12,width=1280,height=720,framerate=30/1 ! {TAIL}",
    ]
    (turned,) = csi_descriptions(1, CameraOptions(size_wh=(1920, 1080), fps=60, rotate=90))
    assert turned == (
        "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),width=1920,height=1080,framerate=60/1 "
        f"! nvvidconv flip-method=3 ! video/x-raw,format=BGRx ! {TAIL}"
    )


def test_a_network_stream_goes_through_the_jetsons_decoder() -> None:
    assert nvdec_descriptions('rtsp://u:p%40@h/x"y', "udp") == [
        'rtspsrc location="rtsp://u:p%40@h/x\\"y" protocols=udp latency=200 drop-on-latency=true '
        f"! rtp{codec}depay ! {codec}parse ! video/x-{codec},stream-format=byte-stream,alignment=au "
        f"! nvv4l2decoder ! nvvidconv ! video/x-raw,format=BGRx ! {TAIL}"
        for codec in ("h264", "h265")
    ]


@needs_gstreamer
@pytest.mark.parametrize(("stand_ins", "number"), [(JETSON, 0), (RASPBERRY, 1)], ids=["jetson", "raspberry"])
def test_a_csi_camera_is_turned_clockwise(stand_ins: dict[str, str], number: int) -> None:
    upright = first_picture([stood_in(csi_descriptions(0, SIZED)[number], stand_ins)])
    assert upright.shape == (60, 80, 3)
    for rotate in (90, 180, 270):
        options = CameraOptions(size_wh=(80, 60), fps=25, rotate=rotate)
        turned = first_picture([stood_in(csi_descriptions(0, options)[number], stand_ins)])
        expected = np.rot90(upright, -rotate // 90)
        assert turned.shape == expected.shape
        assert np.abs(turned.astype(int) - expected).mean() < 8  # chroma is halved, so borders differ


@needs_gstreamer
def test_where_argus_is_missing_libcamera_is_taken() -> None:
    argus, libcamera = csi_descriptions(0, SIZED)
    assert first_picture([argus, stood_in(libcamera, RASPBERRY)]).shape == (60, 80, 3)


@needs_gstreamer
def test_a_stream_of_another_codec_is_given_to_the_next_pipeline_and_else_refused() -> None:
    other = f"videotestsrc is-live=true ! decodebin ! audioconvert ! appsink name={TAIL.split('name=')[1]}"
    assert first_picture([other, own_description("videotestsrc is-live=true")]).shape == (240, 320, 3)
    with pytest.raises(SourceRefusedError, match="Delayed linking failed"):
        first_picture([other, other])


def _software(address: SecretUri, options: StreamOptions) -> DecoderProcess:
    descriptions = nvdec_descriptions(address.uri, options.transport)
    return play([stood_in(description, JETSON) for description in descriptions], address)


@needs_decoder
@needs_rtsp_server
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_network_stream_is_decoded_and_its_end_and_its_refusal_are_told_apart(transport: str) -> None:
    with RtspServer(credentials=("admin", 'p@ss/w?rd#[x"\\ y')) as server:
        wrong = StreamSource(secret_uri(server.uri.replace("p@ss", "geheim")), StreamOptions(transport), _software)
        with pytest.raises(SourceRefusedError, match="401") as caught:
            wrong.open(SystemClock(), threading.Event())
        assert "geheim" not in str(caught.value)
        source = StreamSource(secret_uri(server.uri), StreamOptions(transport, stall_s=2), _software)
        source.open(SystemClock(), threading.Event())
        frames = [source.read() for _ in range(5)]
        assert all(frame is not None and frame.image.shape == (240, 320, 3) for frame in frames)
        server.kill()
        with pytest.raises(SourceLostError):
            list(iter(source.read, None))
        source.close()
