"""A camera that gives another picture, another time or another camera than was asked for misleads who steers by it."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.fakes import CollectingSink, FakeCapture, ManualClock, classes_of, picture_of
from tests.media import opened
from vidseg.runtime.engines.fake import FakeEngine
from vidseg.runtime.errors import FrameError, SourceLostError, SourceOpenError, UsageError
from vidseg.runtime.pipeline import Pipeline, PipelineOptions
from vidseg.runtime.sources.camera import CameraSource
from vidseg.runtime.sources.cameras import CameraInfo, list_cameras
from vidseg.runtime.sources.capture import CameraOptions, Capture, Got, V4l2Capture, open_capture

pytestmark = pytest.mark.timeout(30)
MS = 1_000_000
SHOT = (picture_of(0), None)


def _camera(tmp_path: Path, capture: FakeCapture, options: CameraOptions | None = None) -> CameraSource:
    device = tmp_path / "video0"
    device.touch()
    return CameraSource(device, options, open_capture=lambda _: capture)


def _later() -> ManualClock:
    clock = ManualClock()
    clock.advance_ms(5000)
    return clock


def _image_of(tmp_path: Path, raw: NDArray[Any], rotate: int = 0) -> NDArray[Any]:
    frame = opened(_camera(tmp_path, FakeCapture([(raw, None)]), CameraOptions(rotate=rotate))).read()
    assert frame is not None
    assert frame.image.dtype == np.uint8
    assert not frame.image.flags.writeable
    return frame.image


def test_options_are_read_from_the_uri() -> None:
    source = CameraSource.from_uri("/dev/video0?size=1280x720&fps=30&format=MJPG&rotate=90")
    assert source._options == CameraOptions((1280, 720), 30, "MJPG", 90)
    assert source.name == "/dev/video0"
    assert source.live
    assert CameraSource.from_uri("/dev/video0")._options == CameraOptions()
    assert CameraSource.from_uri("/dev/video0?format=Y16%20")._options.format == "Y16 "


@pytest.mark.parametrize(
    "query",
    [
        "sise=1x1",
        "size",
        "size=",
        "size=1280",
        "size=1280x",
        "size=-1x720",
        "size=8x8",
        "size=1x99999",
        "size=640x480&size=320x240",
        "fps=0",
        "fps=29.97",
        "fps=-1",
        "fps=many",
        "fps=9999",
        "format=JPG",
        "format=MJPEG",
        "format=",
        "rotate=45",
        "rotate=-90",
        "rotate=360",
        "rotate=x",
    ],
)
def test_options_that_are_not_understood_are_refused_with_the_form(query: str) -> None:
    with pytest.raises(UsageError, match=r"Use /dev/video0\?size=1280x720&fps=30&format=MJPG&rotate=0\|90") as caught:
        CameraSource.from_uri(f"/dev/video0?{query}")
    assert "\n" not in str(caught.value)
    assert query in str(caught.value)


@pytest.mark.parametrize("uri", ["/dev/video0\x1b[2J", "/dev/video0?fps=30&" + "x" * 4000])
def test_a_camera_has_a_short_plain_name(uri: str) -> None:
    with pytest.raises(UsageError) as caught:
        CameraSource.from_uri(uri)
    assert len(str(caught.value)) < 1000


def test_a_camera_that_does_as_asked_is_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    capture = FakeCapture([SHOT], Got((1280, 720), 29.97, "MJPG"))
    options = CameraOptions((1280, 720), 30, "MJPG")
    with caplog.at_level(logging.INFO):
        source = opened(_camera(tmp_path, capture, options))
    assert capture.asked == [options]
    assert [record.levelno for record in caplog.records] == [logging.INFO]
    assert caplog.messages == [f"{source.name}: gives 1280x720 29.97 fps MJPG"]


@pytest.mark.parametrize(
    "got", [Got((640, 480), 30, "MJPG"), Got((1280, 720), 10, "MJPG"), Got((1280, 720), 0, "YUYV")]
)
def test_what_a_camera_gives_instead_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture, got: Got) -> None:
    source = opened(_camera(tmp_path, FakeCapture([SHOT], got), CameraOptions((1280, 720), 30, "MJPG")))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    rate = f"{got.fps:g}" if got.fps else "unknown"
    given = f"{got.size_wh[0]}x{got.size_wh[1]} {rate} fps {got.format}"
    assert record.getMessage() == f"{source.name}: asked for 1280x720 30 fps MJPG, got {given}"


def test_what_was_not_asked_for_is_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    opened(_camera(tmp_path, FakeCapture([SHOT], Got((320, 240), 15, "GREY")), CameraOptions(fps=15)))
    assert not caplog.records


@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
def test_pictures_come_as_8_bit_bgr_turned_clockwise(tmp_path: Path, rotate: int) -> None:
    random = np.random.default_rng(0)
    color = random.integers(0, 256, (12, 16, 3), np.uint8)
    deep = random.integers(0, 65536, (12, 16), np.uint16)
    gray = color[:, :, 0].copy()
    upper = np.dstack([(deep // 256).astype(np.uint8)] * 3)
    for raw, bgr in (
        (color, color),
        (gray, np.dstack([gray] * 3)),
        (gray[:, :, None], np.dstack([gray] * 3)),
        (deep, upper),
        (deep[:, :, None], upper),
        (np.dstack([deep] * 3), upper),
    ):
        assert np.array_equal(_image_of(tmp_path, raw.copy(), rotate), np.rot90(bgr, -rotate // 90))


def test_a_damaged_picture_is_left_out_and_the_next_one_read(tmp_path: Path) -> None:
    raw = np.zeros((12, 16, 2), np.uint8)
    for damaged in (np.empty((0, 0, 3), np.uint8), raw):
        source = opened(_camera(tmp_path, FakeCapture([(damaged, None), SHOT, (damaged, None), SHOT])))
        first = source.read()  # the damaged one ahead of it was only the camera's start
        with pytest.raises(FrameError, match="frame 2 cannot be decoded"):
            source.read()
        second = source.read()
        assert first is not None
        assert second is not None
        assert (first.index, second.index) == (1, 3)


@pytest.mark.parametrize("age_ms", [0, 40, 1000])
def test_the_drivers_time_is_the_time_of_capture(tmp_path: Path, age_ms: int) -> None:
    clock = _later()
    taken_ns = clock.now_ns() - age_ms * MS
    frame = opened(_camera(tmp_path, FakeCapture([(picture_of(0), taken_ns)])), clock).read()
    assert frame is not None
    assert (frame.captured_ns, frame.stamp_ns, frame.stamp_clock) == (taken_ns, taken_ns, "driver")


@pytest.mark.parametrize("driver_ns", [None, 1, 4999 * MS, 6001 * MS, 1_700_000_000_000 * MS])
def test_a_driver_with_another_clock_is_not_believed(tmp_path: Path, driver_ns: int | None) -> None:
    clock = _later()
    frame = opened(_camera(tmp_path, FakeCapture([(picture_of(0), driver_ns)])), clock).read()
    assert frame is not None
    assert frame.captured_ns == frame.stamp_ns == clock.now_ns()


def test_a_lost_camera_ends_the_run_after_what_it_gave_is_delivered(tmp_path: Path) -> None:
    capture = FakeCapture([(picture_of(index), None) for index in range(5)])
    source, sink = _camera(tmp_path, capture), CollectingSink(queue_size=8)
    options = PipelineOptions(every_frame=True, max_age_ms=30_000, retry="never")
    pipeline = Pipeline([source], lambda: FakeEngine((16, 12)), [sink], options=options)
    with pytest.raises(SourceLostError, match="no more frames: got 5 frames, then none") as caught:
        pipeline.run()
    assert caught.value.exit_code == 5
    assert sink.indices == classes_of(sink.results) == [0, 1, 2, 3, 4]
    ledger = pipeline.statistics().ledger
    assert (ledger.captured, ledger.resolved, ledger.in_flight) == (5, 5, 0)
    assert ledger.balanced
    assert capture.closed == 1


def test_a_camera_that_was_unplugged_is_named_so(tmp_path: Path) -> None:
    source = opened(_camera(tmp_path, FakeCapture([SHOT])))
    assert source.read() is not None
    (tmp_path / "video0").unlink()
    with pytest.raises(SourceLostError, match=r"video0: the camera is gone: got 1 frames\. Plug it in again"):
        source.read()


def test_a_camera_that_starts_slowly_is_waited_for(tmp_path: Path) -> None:
    source = opened(_camera(tmp_path, FakeCapture([None, None, SHOT])))
    frame = source.read()
    assert frame is not None
    assert frame.index == 0


def test_a_camera_without_a_frame_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceOpenError, match=r"gives no frame\. Another USB port") as caught:
        opened(_camera(tmp_path, FakeCapture([])))
    assert "\n" not in str(caught.value)


def test_stop_ends_every_wait(tmp_path: Path) -> None:
    stop = threading.Event()
    capture = FakeCapture([None, None, SHOT], before=stop.set)  # stopped while the first frame is waited for
    source = opened(_camera(tmp_path, capture), stop=stop)
    assert source.read() is None
    assert capture.reads == 1

    stop = threading.Event()
    capture = FakeCapture([SHOT])
    source = opened(_camera(tmp_path, capture), stop=stop)
    assert source.read() is not None
    capture._before = stop.set  # stopped while nothing comes: no fault
    assert source.read() is None
    assert source.read() is None
    assert capture.reads == 2
    source.close()
    source.close()
    assert capture.closed == 1


def test_each_opening_follows_the_link_and_is_an_epoch_of_its_own(tmp_path: Path) -> None:
    followed: list[Path] = []

    def open_and_note(device: Path) -> Capture:
        followed.append(device)
        return FakeCapture([SHOT])

    link = tmp_path / "usb-cam-index0"
    source = CameraSource(link, open_capture=open_and_note)
    assert source.name == str(link)
    for epoch, device in enumerate((tmp_path / "video0", tmp_path / "video2")):
        device.touch()
        link.unlink(missing_ok=True)
        link.symlink_to(device)
        frame = opened(source).read()
        assert frame is not None
        assert (frame.epoch, frame.index) == (epoch, 0)
    assert followed == [(tmp_path / "video0").resolve(), (tmp_path / "video2").resolve()]


@pytest.mark.parametrize(
    ("there", "says"),
    [
        ([], "No camera is connected"),
        (
            [CameraInfo(Path("/dev/video2"), "C920", None), CameraInfo(Path("/dev/video4"), "Cam\n2", None)],
            "2 (C920), /d",
        ),
    ],
)
def test_a_missing_camera_is_refused_with_those_that_are_there(there: list[CameraInfo], says: str) -> None:
    source = CameraSource("/dev/video-none", list_cameras=lambda: there)
    with pytest.raises(SourceOpenError, match="/dev/video-none: there is no such camera") as caught:
        opened(source)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    source.close()


def test_a_camera_that_may_not_be_used_names_the_group(tmp_path: Path) -> None:
    def refuse(device: Path) -> Capture:
        raise PermissionError(13, "Permission denied", str(device))

    (tmp_path / "video0").touch()
    with pytest.raises(SourceOpenError, match=r"video0: you may not use this camera.*group `video`") as caught:
        opened(CameraSource(tmp_path / "video0", open_capture=refuse))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["/dev/null", "file", "folder"])
def test_what_is_no_camera_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("no camera")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="no video device"):
        open_capture(tmp_path / name)
    with pytest.raises(SourceOpenError, match="cannot be opened as a camera: got something that is no video device"):
        opened(CameraSource(tmp_path / name))


class FakeVideo:
    """Stands for `cv2.VideoCapture`: keeps what is set, and notes every call."""

    def __init__(self) -> None:
        self.calls: list[str | tuple[int, float]] = []
        self.properties = {cv2.CAP_PROP_FOURCC: 0x56595559, cv2.CAP_PROP_POS_MSEC: 6000.125, cv2.CAP_PROP_FPS: -1.0}
        self.image: NDArray[np.uint8] | None = picture_of(3)
        self.grabs = True
        self.fault: Exception | None = None

    def set(self, propId: int, value: float) -> bool:  # noqa: N803
        self.calls.append((propId, value))
        self.properties[propId] = value
        return True

    def get(self, propId: int) -> float:  # noqa: N803
        self.calls.append(f"get {propId}")
        return self.properties.get(propId, 0.0)

    def grab(self) -> bool:
        self.calls.append("grab")
        return self.grabs

    def retrieve(self) -> tuple[bool, NDArray[np.uint8] | None]:
        self.calls.append("retrieve")
        if self.fault:
            raise self.fault
        return self.image is not None, self.image

    def release(self) -> None:
        self.calls.append("release")


def test_opencv_is_asked_for_format_then_size_then_rate() -> None:
    video = FakeVideo()
    got = V4l2Capture(video).configure(CameraOptions((1280, 720), 30, "MJPG"))
    assert [call for call in video.calls if isinstance(call, tuple)] == [
        (cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")),
        (cv2.CAP_PROP_FRAME_WIDTH, 1280),
        (cv2.CAP_PROP_FRAME_HEIGHT, 720),
        (cv2.CAP_PROP_FPS, 30),
    ]
    assert got == Got((1280, 720), 30, "MJPG")
    untouched = FakeVideo()
    assert V4l2Capture(untouched).configure(CameraOptions()) == Got((0, 0), 0, "YUYV")
    assert not [call for call in untouched.calls if isinstance(call, tuple)]


def test_the_drivers_time_is_read_between_grab_and_retrieve() -> None:
    video = FakeVideo()
    capture = V4l2Capture(video)
    captured = capture.read()
    assert captured is not None
    assert captured[1] == 6_000_125_000
    assert np.array_equal(captured[0], picture_of(3))
    assert video.calls == ["grab", f"get {cv2.CAP_PROP_POS_MSEC}", "retrieve"]
    video.properties[cv2.CAP_PROP_POS_MSEC] = 0
    assert (capture.read() or captured)[1] is None


def test_a_picture_that_opencv_cannot_decode_has_no_pixels_and_none_is_none() -> None:
    video = FakeVideo()
    capture = V4l2Capture(video)
    for image, fault in ((None, None), (picture_of(0), cv2.error("damaged"))):
        video.image, video.fault = image, fault
        captured = capture.read()
        assert captured is not None
        assert captured[0].size == 0
    video.grabs = False
    assert capture.read() is None
    capture.close()
    assert video.calls[-1] == "release"


def _node(root: Path, number: int, name: str, index: str = "0", *, device: bool = True) -> None:
    node = root / "sys" / f"video{number}"
    node.mkdir(parents=True)
    (node / "name").write_text(f"{name}\n")
    (node / "index").write_text(f"{index}\n")
    (root / "dev").mkdir(exist_ok=True)
    if device:
        (root / "dev" / f"video{number}").touch()


def _listed(root: Path) -> list[tuple[str, str, str | None]]:
    cameras = list_cameras(root / "sys", root / "dev" / "v4l" / "by-id", root / "dev")
    return [(cam.path.name, cam.name, cam.stable_id.name if cam.stable_id else None) for cam in cameras]


def test_cameras_are_listed_by_number_with_their_stable_names(tmp_path: Path) -> None:
    for number, name, index in ((10, "C920", "0"), (11, "C920", "1"), (2, "Built-in", "0"), (3, "Built-in", "1")):
        _node(tmp_path, number, name, index)
    (tmp_path / "sys" / "v4l-subdev0").mkdir()
    by_id = tmp_path / "dev" / "v4l" / "by-id"
    by_id.mkdir(parents=True)
    for link, device in (("usb-C920-index0", "video10"), ("usb-C920-index1", "video11"), ("usb-gone", "video99")):
        (by_id / link).symlink_to(f"../../{device}")
    assert _listed(tmp_path) == [("video2", "Built-in", None), ("video10", "C920", "usb-C920-index0")]


def test_cameras_that_vanish_while_they_are_listed_are_left_out(tmp_path: Path) -> None:
    assert _listed(tmp_path) == []
    _node(tmp_path, 0, "there")
    _node(tmp_path, 1, "in another container", device=False)
    _node(tmp_path, 2, "odd", index="")
    (tmp_path / "sys" / "video3").symlink_to("nowhere")
    _node(tmp_path, 4, "half gone")
    (tmp_path / "sys" / "video4" / "name").unlink()
    assert _listed(tmp_path) == [("video0", "there", None)]
