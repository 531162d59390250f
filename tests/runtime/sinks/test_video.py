"""A recording that does not play, or that a crash takes with it, is no recording."""

from __future__ import annotations

import logging
import signal
import struct
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from tests.media import moving_blocks, opened, read_all, segmentation_of
from vidseg.runtime.errors import SinkError
from vidseg.runtime.frame import Image
from vidseg.runtime.sinks import mp4
from vidseg.runtime.sinks.video import VideoFileSink
from vidseg.runtime.sources.video import VideoSource

ROOT = Path(__file__).parents[3]


def _record(path: Path, pictures: list[Image], interval_ms: int = 40) -> None:
    sink = VideoFileSink(path)
    for index, picture in enumerate(pictures):
        sink.write(segmentation_of(picture, index, stamp_ms=1000 + index * interval_ms), picture)
    sink.close()
    sink.close()


def _box_kinds(path: Path) -> list[str]:
    content, place, kinds = path.read_bytes(), 0, []
    while place < len(content):
        size, kind = struct.unpack_from(">I4s", content, place)
        kinds.append(kind.decode())
        place += size
    return kinds


def test_what_is_recorded_comes_back_with_its_pictures_and_times(tmp_path: Path) -> None:
    pictures = moving_blocks(60)
    _record(tmp_path / "v.mp4", pictures)
    frames, errors = read_all(opened(VideoSource(tmp_path / "v.mp4")))
    assert not errors
    assert [round(frame.stamp_ns / 1e6) for frame in frames] == [index * 40 for index in range(60)]
    for frame, picture in zip(frames, pictures, strict=True):
        assert np.abs(frame.image.astype(int) - picture).mean() < 15  # 4:2:0 at block edges


def test_colors_survive_the_recording(tmp_path: Path) -> None:
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0], [200, 120, 40]], np.uint8)
    picture = np.repeat(np.tile(colors, (64, 1, 1)), 32, axis=1)
    _record(tmp_path / "v.mp4", [picture] * 3)
    frames, _ = read_all(opened(VideoSource(tmp_path / "v.mp4")))
    assert np.abs(frames[2].image[32, 16::32].astype(int) - colors).max() <= 6


def test_browsers_play_it(tmp_path: Path) -> None:
    """H.264 in avc1, 4:2:0, even sizes, BT.709 tags; whole files have an index in one piece, so that a player seeks."""
    path = tmp_path / "v.mp4"
    _record(path, moving_blocks(80, (97, 63)), interval_ms=100)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.codec_tag, context.pix_fmt) == ("h264", "avc1", "yuv420p")
        assert (stream.width, stream.height) == (98, 64)
        assert (context.colorspace, context.color_range, context.color_primaries, context.color_trc) == (1, 1, 1, 1)
        keyframes_s = [float(packet.pts * packet.time_base) for packet in container.demux(stream) if packet.is_keyframe]
        assert stream.frames == 80
    assert max(np.diff(keyframes_s)) <= 2.1
    assert _box_kinds(path) == ["ftyp", "free", "mdat", "moov"]


def test_an_odd_size_repeats_its_last_row_and_column(tmp_path: Path) -> None:
    picture = moving_blocks(1, (33, 17))[0]
    picture[-1], picture[:, -1] = 200, 200
    _record(tmp_path / "v.mp4", [picture])
    frames, _ = read_all(opened(VideoSource(tmp_path / "v.mp4")))
    assert frames[0].image.shape == (18, 34, 3)
    assert np.abs(frames[0].image[-1].astype(int) - 200).max() < 20
    assert np.abs(frames[0].image[:, -1].astype(int) - 200).max() < 20


def test_pictures_of_another_size_are_scaled_into_the_recording(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    white = np.full((64, 96, 3), 255, np.uint8)
    with caplog.at_level(logging.WARNING):
        _record(tmp_path / "v.mp4", [white, white[:, :64], white[:, :32], white])
    frames, _ = read_all(opened(VideoSource(tmp_path / "v.mp4")))
    assert {frame.image.shape for frame in frames} == {(64, 96, 3)}
    assert frames[1].image[32, 48].min() > 240
    assert frames[1].image[32, 4].max() < 140
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}/v.mp4: pictures of 64x64 are scaled to the recording's 96x64"
    ]


KILLED_WRITER = """
import sys
from pathlib import Path
from tests.media import moving_blocks, segmentation_of
from vidseg.runtime.sinks.video import VideoFileSink
sink = VideoFileSink(sys.argv[1])
pictures = moving_blocks(10)
for index in range(100_000):
    picture = pictures[index % 10]
    sink.write(segmentation_of(picture, index, stamp_ms=index * 40), picture)
    print(index, flush=True)
"""


def test_what_was_recorded_before_a_kill_plays(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED_WRITER, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    written = -1
    for line in child.stdout:
        written = int(line)
        if written >= 140:
            child.send_signal(signal.SIGKILL)
    assert child.wait(20) == -signal.SIGKILL
    frames, errors = read_all(opened(VideoSource(path)))
    assert not errors
    assert written - 25 <= len(frames) <= written + 2  # a second of 25 frames
    assert [round(frame.stamp_ns / 1e6) for frame in frames] == [index * 40 for index in range(len(frames))]


FULL_DISK_WRITER = """
import resource, sys
from pathlib import Path
from tests.media import moving_blocks, segmentation_of
from vidseg.runtime.errors import SinkError
from vidseg.runtime.sinks.video import VideoFileSink
pictures = moving_blocks(60)
for path, limit in zip(sys.argv[1::2], sys.argv[2::2]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
    sink = VideoFileSink(path)
    try:
        for index, picture in enumerate(pictures):
            sink.write(segmentation_of(picture, index, stamp_ms=index * 40), picture)
        sink.close()
        error = ""
    except SinkError as caught:
        error = str(caught)
    sink.close()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(error, flush=True)
"""


def test_a_full_disk_is_told_and_what_was_complete_plays(tmp_path: Path) -> None:
    """A file size limit stands for the full disk: the write fails in the same place, with an error of the same kind."""
    _record(tmp_path / "whole.mp4", moving_blocks(60))
    size = (tmp_path / "whole.mp4").stat().st_size
    limits = [100, 5_000, size // 3, size // 2, size - 3000, size - 700, size - 1, size]
    arguments = [text for limit in limits for text in (str(tmp_path / f"{limit}.mp4"), str(limit))]
    child = subprocess.run(
        [sys.executable, "-c", FULL_DISK_WRITER, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert child.stderr == ""
    errors = child.stdout.split("\n")[: len(limits)]
    assert errors.pop() == ""  # it just fits
    counts = []
    for limit, error in zip(limits, errors, strict=False):
        path = tmp_path / f"{limit}.mp4"
        assert f"{path}: the recording breaks off at" in error
        assert "got File too large" in error
        if path.exists():
            assert "What was recorded up to then plays." in error
            frames, bad = read_all(opened(VideoSource(path)))
            assert not bad
            counts.append(len(frames))
        else:
            assert "Nothing was recorded." in error
            counts.append(0)
    assert counts[:2] == [0, 0]
    assert counts == sorted(counts)
    assert counts[-1] >= 60 - 13  # of the last half second
    assert list(tmp_path.glob(".*")) == []


def test_an_old_recording_stays_until_the_new_one_has_begun(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    path.write_bytes(b"an old recording")
    picture = moving_blocks(1)[0]
    sink = VideoFileSink(path)
    sink.close()
    assert path.read_bytes() == b"an old recording"
    sink = VideoFileSink(path)
    sink.write(segmentation_of(picture, 0), picture)
    assert path.read_bytes() == b"an old recording"
    sink.close()
    assert len(read_all(opened(VideoSource(path)))[0]) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["v.mp4"]


def test_nothing_is_made_before_the_first_result(tmp_path: Path) -> None:
    sink = VideoFileSink(tmp_path / "v.mp4")
    sink.close()
    assert list(tmp_path.iterdir()) == []


def test_a_place_where_nothing_can_be_recorded_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    for path, says in ((tmp_path / "missing" / "v.mp4", "there is no folder"), (tmp_path / "folder.mp4", "a folder")):
        with pytest.raises(SinkError, match=says):
            VideoFileSink(path)


def test_a_folder_that_vanishes_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    sink = VideoFileSink(folder / "v.mp4")
    folder.rmdir()
    picture = moving_blocks(1)[0]
    with pytest.raises(SinkError, match="cannot be made: got No such file or directory"):
        sink.write(segmentation_of(picture, 0), picture)
    sink.close()


def test_without_x264_another_encoder_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mp4, "ENCODERS", (("libmissing", {"crf": "1"}), ("mpeg4", {})))
    _record(tmp_path / "v.mp4", moving_blocks(30))
    assert "recording with mpeg4" in caplog.text
    assert len(read_all(opened(VideoSource(tmp_path / "v.mp4")))[0]) == 30


def test_without_any_encoder_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mp4, "ENCODERS", (("libmissing", {}),))
    picture = moving_blocks(1)[0]
    sink = VideoFileSink(tmp_path / "v.mp4")
    with pytest.raises(SinkError, match="a PyAV without libmissing"):
        sink.write(segmentation_of(picture, 0), picture)
    assert list(tmp_path.iterdir()) == []
