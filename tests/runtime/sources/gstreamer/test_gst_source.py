"""A pipeline of a person's own may be wrong, freeze, end or crash: each is one clear line, and nothing is left over."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import numpy as np
import pytest

from tests.processes import children_running
from tests.runtime.sources.gstreamer.bindings import needs_gstreamer
from vidseg.runtime.clock import SystemClock
from vidseg.runtime.engines.fake import FakeEngine
from vidseg.runtime.errors import SourceError, SourceLostError, SourceOpenError, SourceRefusedError, UsageError
from vidseg.runtime.frame import Frame, Segmentation
from vidseg.runtime.pipeline import Pipeline
from vidseg.runtime.pipeline.options import PipelineOptions
from vidseg.runtime.sinks.callback import CallbackSink
from vidseg.runtime.sources.gstreamer.sources import csi_source, gst_source
from vidseg.runtime.sources.opening import source_from_uri
from vidseg.runtime.sources.streams.source import StreamSource

LIVE = "gst:videotestsrc is-live=true"
SMALL = "video/x-raw,width=64,height=48,framerate=30/1"
pytestmark = [pytest.mark.timeout(60), needs_gstreamer]


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Each test ends with the descriptors and children that it began with."""
    before = _descriptors()
    yield
    assert _descriptors() == before
    assert children_running("child.py") == []


def _descriptors() -> set[str]:
    names = [path for path in Path("/proc/self/fd").iterdir() if path.exists()]
    links = {f"{path.name} {os.path.realpath(path)}" for path in names}
    return {link for link in links if "socket" in link or "memfd" in link}


@contextmanager
def opened(uri: str, stop: threading.Event | None = None) -> Iterator[StreamSource]:
    source = gst_source(uri)
    try:
        source.open(SystemClock(), stop or threading.Event())
        yield source
    finally:
        source.close()


def read_to_the_end(source: StreamSource) -> tuple[list[Frame], SourceLostError]:
    frames: list[Frame] = []
    try:
        while (frame := source.read()) is not None:
            frames.append(frame)
    except SourceLostError as error:
        return frames, error
    raise AssertionError("it was stopped")


def read_one(source: StreamSource) -> Frame:
    frame = source.read()
    assert frame is not None
    return frame


@pytest.mark.parametrize(("pixels", "most"), [("BGR", 0), ("I420", 3), ("NV12", 3), ("RGBA", 0), ("YUY2", 3)])
def test_colours_are_right_whatever_the_pipeline_gives(pixels: str, most: int) -> None:
    pattern = "pattern=solid-color foreground-color=0xff204080"
    with opened(f"{LIVE} {pattern} ! {SMALL},format={pixels}") as source:
        frame = read_one(source)
    assert frame.image.shape == (48, 64, 3)
    assert np.abs(frame.image.astype(int) - (0x80, 0x40, 0x20)).max() <= most


@pytest.mark.parametrize("width", [33, 34, 35, 36])
def test_rows_of_any_width_stay_straight(width: int) -> None:
    with opened(f"{LIVE} pattern=smpte75 ! video/x-raw,format=BGR,width={width},height=9") as source:
        image = read_one(source).image
    assert image.shape == (9, width, 3)
    assert (image == image[0]).all(), "the bars are vertical"
    assert image[0, 0].min() > 150, "the first bar is gray"
    assert image[0, -1, 0] > 150 > image[0, -1, 2], "the last one is blue"


def test_what_is_left_out_is_missing_in_the_indices_and_the_end_is_a_loss() -> None:
    """This pipeline does not wait for anybody."""
    with opened(f"gst:videotestsrc num-buffers=200 ! {SMALL}") as source:
        frames, error = read_to_the_end(source)
    assert "no more frames come: got the stream has ended" in str(error)
    indices = [frame.index for frame in frames]
    assert indices[0] == 0
    assert indices == sorted(set(indices))
    for frame in frames:
        assert (frame.epoch, frame.stamp_clock, frame.image.flags.writeable) == (0, "pts", False)
        assert frame.stamp_ns == pytest.approx(frame.index * 1e9 / 30, abs=2)


def test_a_pipeline_may_change_its_size() -> None:
    camera = "videotestsrc is-live=true num-buffers=8 ! video/x-raw,framerate=30/1"
    first, second = f"{camera},width=64,height=48", f"{camera},width=99,height=30"
    with opened(f"gst:concat name=c {first} ! c. {second} ! c. c.") as source:
        frames, _ = read_to_the_end(source)
    assert [frame.image.shape for frame in (frames[0], frames[-1])] == [(48, 64, 3), (30, 99, 3)]


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("gst:nosuchthing ! videoconvert", 'no element "nosuchthing"'),
        ("gst:videotestsrc colour=red", 'no property "colour"'),
        ("gst:videotestsrc ! audioconvert", "could not link videotestsrc0 to audioconvert0"),
        ("gst:videotestsrc ! ! identity", "syntax error"),
        ("gst:filesrc location=/nothing ! decodebin", 'No such file "/nothing"'),
        ("gst:rtspsrc location=rtsp://u:geheim@127.0.0.1:1/x user-pw=geheim colour=red", 'no property "colour"'),
        ("gst:fakesrc user-pw=geheim", 'no property "user-pw"'),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(uri: str, said: str) -> None:
    with pytest.raises(SourceRefusedError) as caught, opened(uri):
        pass
    assert said in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_a_camera_that_is_away_is_no_refusal() -> None:
    uri = "gst:rtspsrc location=rtsp://user:geheim@127.0.0.1:1/x ! decodebin"
    with pytest.raises(SourceOpenError, match="Failed to connect") as caught, opened(uri):
        pass
    assert not isinstance(caught.value, SourceRefusedError)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("text", ["videotestsrc ! fakesink", "appsink", "videotestsrc ! autovideosink sync=false"])
def test_a_description_with_a_sink_is_refused_before_anything_starts(text: str) -> None:
    with pytest.raises(UsageError, match="its own sink"):
        gst_source(f"gst:{text}")


def test_a_branch_beside_ours_may_have_a_sink() -> None:
    with opened(f"{LIVE} ! tee name=t t. ! queue ! fakesink t.") as source:
        assert read_one(source).image.shape == (240, 320, 3)


@pytest.mark.parametrize("mute", ["valve drop=true", "identity sleep-time=60000000"])
def test_a_pipeline_that_gives_nothing_is_given_up_in_time(mute: str) -> None:
    started = monotonic()
    with (
        pytest.raises(SourceOpenError, match=r"no frame comes: got nothing in 1 s"),
        opened(f"{LIVE} ! {mute}#open_s=1"),
    ):
        pass
    assert monotonic() - started < 6


def test_a_process_that_freezes_is_lost_in_time_and_ended() -> None:
    with opened(f"{LIVE} ! {SMALL}#stall_s=1") as source:
        (child,) = children_running("child.py")
        os.kill(child, signal.SIGSTOP)
        started = monotonic()
        _, error = read_to_the_end(source)
        assert "has frozen" in str(error)
    assert monotonic() - started < 8


def test_a_process_that_dies_is_a_lost_stream() -> None:
    with opened(f"{LIVE} ! {SMALL}#stall_s=30") as source:
        (child,) = children_running("child.py")
        os.kill(child, signal.SIGKILL)
        started = monotonic()
        _, error = read_to_the_end(source)
        assert "ended with code -9" in str(error)
        assert monotonic() - started < 5


def test_a_stop_ends_the_wait_at_once() -> None:
    stop = threading.Event()
    with opened(f"{LIVE} ! {SMALL}#stall_s=60", stop) as source:
        (child,) = children_running("child.py")
        os.kill(child, signal.SIGSTOP)
        timer = threading.Timer(0.2, stop.set)
        timer.start()
        started = monotonic()
        assert len(list(iter(source.read, None))) < 10
        assert monotonic() - started < 2
        timer.join()


def test_a_device_is_let_go_before_the_process_ends() -> None:
    """Some cameras are not to be had again for a while where it is just killed."""
    with opened(f"{LIVE} ! {SMALL}") as source:
        process = source._process
        assert process is not None
    assert process._process.returncode == 0


def test_each_opening_is_an_epoch() -> None:
    with opened(f"{LIVE} ! {SMALL}") as source:
        assert read_one(source).epoch == 0
        source.open(SystemClock(), threading.Event())
        frame = read_one(source)
        assert (frame.epoch, frame.index, frame.stamp_ns) == (1, 0, 0)


def test_a_password_is_in_no_name_no_argument_and_no_environment() -> None:
    with opened(f'{LIVE} ! identity name="user:geheim@host" ! {SMALL}') as source:
        (child,) = children_running("child.py")
        frame = read_one(source)
        seen = [Path(f"/proc/{child}/{file}").read_bytes() for file in ("cmdline", "environ")]
    assert all(b"geheim" not in text for text in seen)
    assert "geheim" not in source.name + frame.source


def test_a_process_stays_small() -> None:
    with opened(f"{LIVE} ! video/x-raw,format=I420,width=1920,height=1080,framerate=30/1") as source:
        (child,) = children_running("child.py")
        for _ in range(20):
            source.read()
        status = Path(f"/proc/{child}/status").read_text()
    peak_kib = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
    assert peak_kib < 100 << 10


def test_a_run_takes_a_pipelines_pictures_and_ends_with_it() -> None:
    seen: list[Segmentation] = []
    source = source_from_uri(f"gst:videotestsrc is-live=true num-buffers=15 ! {SMALL}")
    options = PipelineOptions(retry="never")
    pipeline = Pipeline([source], lambda: FakeEngine((64, 48)), [CallbackSink(seen.append)], options=options)
    with pytest.raises(SourceError, match="has ended"):
        pipeline.run()
    assert pipeline.statistics().ledger.balanced
    assert {result.frame.image.shape for result in seen} == {(48, 64, 3)}


def test_a_csi_camera_needs_elements_that_are_named() -> None:
    source = csi_source("csi://0#size=640x480&fps=60&rotate=180&open_s=20")
    assert source.name == "csi://0"
    with pytest.raises(SourceRefusedError, match='"nvarguscamerasrc", no element "libcamerasrc"'):
        source.open(SystemClock(), threading.Event())
