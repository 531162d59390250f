"""A recording is looked at when something has happened: then the right seconds have to be there."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from tests.runtime.sinks.recording.material import (
    CARS,
    CLASSES,
    RATE,
    Recording,
    WallClock,
    all_numbers,
    coded_picture,
    events,
    played,
    segments,
)
from vidseg.runtime.engines.fake import FakeEngine
from vidseg.runtime.errors import SinkError, UsageError
from vidseg.runtime.frame import Frame, Segmentation, SourceStatus
from vidseg.runtime.pipeline import Pipeline
from vidseg.runtime.sinks.recording.names import folder_name_of
from vidseg.runtime.sinks.recording.options import RecordingOptions
from vidseg.runtime.sinks.recording.sink import RecordingSink
from vidseg.runtime.sources.scene import SceneSource

ALWAYS = RecordingOptions(segment_s=2, min_free_mib=1, picture="frame")
ON_EVENT = RecordingOptions(segment_s=60, min_free_mib=1, events=("cars",), pre_s=2, post_s=1)


def test_every_frame_is_in_one_segment_at_its_time(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "rec", ALWAYS)
    recording.write(5 * RATE)
    recording.close()
    recording.close()
    files = segments(tmp_path / "rec/cam")
    assert [path.name for path in files] == [
        f"0000000{number}_20260102T030405Z.mp4" for number in (1, 2, 3)
    ]  # the wall clock stands still
    assert all_numbers(files) == list(range(5 * RATE))
    for path in files:
        times = played(path)[1]
        assert times == pytest.approx([index / RATE for index in range(len(times))], abs=1e-4)
        assert times[-1] < ALWAYS.segment_s
    statistics = recording.sink.statistics()
    assert (statistics.recorded, statistics.not_recorded, statistics.trouble) == (5 * RATE, 0, "")
    assert statistics.size_bytes == sum(path.stat().st_size for path in files)


def test_finished_segments_are_what_browsers_and_players_seek_in(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "rec", ALWAYS)
    recording.size_wh = (191, 143)
    recording.write(RATE)
    recording.close()
    (path,) = segments(tmp_path / "rec/cam")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.codec_tag, context.pix_fmt) == ("h264", "avc1", "yuv420p")
        assert (context.colorspace, context.color_range, context.color_primaries, context.color_trc) == (1, 1, 1, 1)
        assert (stream.width, stream.height, stream.frames) == (192, 144, RATE)


def test_a_gap_in_the_source_is_a_gap_in_time(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "rec", RecordingOptions(min_free_mib=1))
    recording.write(10)
    recording.write(gap_ms=7000)
    recording.write(10)
    recording.close()
    times = played(*segments(tmp_path / "rec/cam"))[1]
    assert times[10] - times[9] == pytest.approx(7.04, abs=1e-4)


def test_a_new_size_or_connection_begins_a_new_segment(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "rec", RecordingOptions(min_free_mib=1))
    recording.write(10)
    recording.size_wh = (384, 288)
    recording.write(10)
    recording.epoch = 1
    recording.write(10)
    recording.close()
    files = segments(tmp_path / "rec/cam")
    assert [len(played(path)[0]) for path in files] == [10, 10, 10]
    assert all_numbers(files) == list(range(30))
    sizes = []
    for path in files:
        with av.open(str(path)) as container:
            sizes.append(container.streams.video[0].width)
    assert sizes == [192, 384, 384]


def test_each_source_has_its_own_folder_whatever_its_name(tmp_path: Path) -> None:
    names = ["front", "rtsp://10.0.0.1/live", "rtsp://10.0.0.2/live", "../../etc", "rtsp___10.0.0.1_live", ".", "é"]
    for _ in range(2):
        sink = RecordingSink(tmp_path / "rec", CLASSES, ALWAYS)
        for number, name in enumerate(names):
            image = coded_picture(number)
            sink.write(
                Segmentation(Frame(name, 0, 0, 0, 0, "wall", image), np.zeros((4, 4), np.uint8), np.eye(2, 3), 0), None
            )
        sink.close()
    folders = sorted(path for path in (tmp_path / "rec").iterdir() if path.is_dir())
    assert len(folders) == len(names)
    assert [len(set(all_numbers(segments(folder)))) for folder in folders] == [1] * len(names)  # the same in both runs
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rec"]


def test_a_clock_that_jumps_back_neither_overwrites_nor_breaks_the_order(tmp_path: Path) -> None:
    clock = WallClock()
    recording = Recording(tmp_path / "rec", ALWAYS, clock=clock)
    for wall_s in (1_767_323_045, 1_767_319_445, 0, -5, 1e15, 1_767_323_045, 1_767_323_045):
        clock.wall_s = wall_s
        recording.write(2 * RATE)
    recording.close()
    files = segments(tmp_path / "rec/cam")
    assert all_numbers(files) == list(range(14 * RATE))
    assert [path.name.split("_")[1] for path in files] == [
        "20260102T030405Z.mp4", "20260102T020405Z.mp4", "19700101T000000Z.mp4", "19700101T000000Z.mp4",
        "99991231T235959Z.mp4", "20260102T030405Z.mp4", "20260102T030405Z.mp4",
    ]  # fmt: skip
    again = Recording(tmp_path / "rec", ALWAYS, clock=clock)
    again.write(RATE)
    again.close()
    assert len(segments(tmp_path / "rec/cam")) == 8


def test_an_event_is_recorded_with_the_seconds_before_and_behind_it(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "rec", ON_EVENT)
    recording.write(10 * RATE + 7)
    recording.write(3 * RATE, cars=True)
    recording.write(5 * RATE)
    recording.close()
    (path,) = segments(tmp_path / "rec/cam")
    numbers = played(path)[0]
    start, end = 10 * RATE + 7, 13 * RATE + 7
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert 2 * RATE <= start - numbers[0] < 3 * RATE  # from the keyframe before
    assert numbers[-1] == end + RATE
    began, ended = events(tmp_path / "rec/cam")
    assert (began["event"], began["change"], began["file"], began["share"]) == ("cars", "started", path.name, 1)
    assert round(began["at_s"] * RATE) == start - numbers[0]
    assert (ended["change"], ended["file"]) == ("ended", path.name)
    assert round(ended["at_s"] * RATE) == end - numbers[0]
    assert began["time"] == "2026-01-02T03:04:05.000Z"
    assert recording.sink.statistics().recorded == len(numbers)
    assert recording.sink.statistics().not_recorded == 0


def test_an_event_at_the_start_has_what_was_there(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "rec", ON_EVENT)
    recording.write(10)
    recording.write(10, cars=True)
    recording.close()
    assert all_numbers(segments(tmp_path / "rec/cam")) == list(range(20))
    assert [event["change"] for event in events(tmp_path / "rec/cam")] == ["started", "stopped"]


def test_events_that_follow_closely_share_a_file_and_a_long_one_has_several(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "rec", RecordingOptions(3, None, 1, ("cars",), pre_s=0, post_s=1))
    recording.write(RATE)
    recording.write(5, cars=True)
    recording.write(5)
    recording.write(7 * RATE, cars=True)
    recording.write(3 * RATE)
    recording.close()
    files = segments(tmp_path / "rec/cam")
    first = RATE
    assert all_numbers(files) == list(range(first, RATE + 10 + 8 * RATE + 1))
    assert [len(played(path)[0]) for path in files[:-1]] == [3 * RATE] * (len(files) - 1)
    told = events(tmp_path / "rec/cam")
    assert [event["change"] for event in told] == ["started", "ended", "started", "ended"]
    assert [event["file"] for event in told] == [files[0].name] * 3 + [files[-1].name]


def test_without_an_event_nothing_is_written(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "rec", ON_EVENT)
    recording.write(RATE)
    recording.close()
    assert [path.name for path in (tmp_path / "rec").iterdir()] == [".recording.lock"]


def test_little_memory_makes_a_shorter_beginning_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recording = Recording(tmp_path / "rec", RecordingOptions(60, None, 1, ("cars",), pre_s=20, post_s=0, pre_mib=1))
    recording.size_wh, recording.noise = (384, 288), 80
    recording.write(5 * RATE)
    recording.write(5, cars=True)
    recording.close()
    numbers = all_numbers(segments(tmp_path / "rec/cam"))
    assert numbers == list(range(numbers[0], 5 * RATE + 5))
    assert "1 MiB hold" in caplog.text
    assert "use a larger pre_mib" in caplog.text


def test_a_lost_source_ends_its_segment_at_once(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "rec", RecordingOptions(min_free_mib=1))
    recording.write(RATE)
    recording.sink.notify(SourceStatus("cam", "silent", recording.clock.now_ns()))
    assert recording.sink.statistics().recorded < RATE
    recording.sink.notify(SourceStatus("cam", "lost", recording.clock.now_ns()))
    recording.sink.notify(SourceStatus("other", "lost", recording.clock.now_ns()))
    assert recording.sink.statistics().recorded == RATE
    recording.write(RATE)
    recording.close()
    assert [len(played(path)[0]) for path in segments(tmp_path / "rec/cam")] == [RATE, RATE]


def test_two_runs_do_not_record_into_one_folder(tmp_path: Path) -> None:
    first, second = Recording(tmp_path / "rec", ALWAYS), Recording(tmp_path / "rec", ALWAYS)
    first.write()
    with pytest.raises(SinkError, match="another run records there"):
        second.write()
    second.close()
    first.close()
    third = Recording(tmp_path / "rec", ALWAYS)
    third.write()
    third.close()


def test_what_makes_no_sense_is_found_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"that is not there: got boats\. Use cars"):
        RecordingSink(tmp_path / "rec", CLASSES, RecordingOptions(events=("boats",)), report=CARS)
    with pytest.raises(UsageError, match=r"got boats\. Add an event of that name"):
        RecordingSink(tmp_path / "rec", CLASSES, RecordingOptions(events=("boats",)))
    with pytest.raises(SinkError, match="there is no folder"):
        RecordingSink(tmp_path / "none/rec", CLASSES)
    sink = RecordingSink(tmp_path / "rec", CLASSES)
    sink.close()
    assert list(tmp_path.iterdir()) == []


def test_the_pipeline_records_what_it_draws(tmp_path: Path) -> None:
    """Through the real pipeline, with a rendered street: overlay and frame, every result of a recorded source."""
    sinks = [
        RecordingSink(tmp_path / name, CLASSES, RecordingOptions(segment_s=2, min_free_mib=1, picture=name))
        for name in ("overlay", "frame")
    ]
    source = SceneSource.from_uri("scene://street?size=192x144&pace=max&noise=0&fps=25&frames=60")
    pipeline = Pipeline(
        [source],
        lambda: FakeEngine((16, 12)),
        sinks,
        draw=lambda segmentation, _: (segmentation.frame.image // 2).astype(np.uint8),
    )
    pipeline.run()
    for sink, brightest in zip(sinks, (130, 255), strict=True):
        files = segments(tmp_path / sink.name.rpartition("/")[2] / folder_name_of(source.name))
        assert len(files) == 2
        assert all_numbers(files) == list(range(60))
        with av.open(str(files[0])) as container:
            assert abs(next(container.decode(video=0)).to_ndarray(format="bgr24").max() - brightest) < 12
        assert sink.statistics().recorded == 60


def test_fifty_recordings_leave_no_descriptor(tmp_path: Path) -> None:
    def once() -> None:
        recording = Recording(tmp_path / "rec", ALWAYS)
        recording.write(2)
        recording.close()

    once()
    before = sorted(Path("/proc/self/fd").iterdir())
    for _ in range(50):
        once()
    assert sorted(Path("/proc/self/fd").iterdir()) == before
    assert len(segments(tmp_path / "rec/cam")) == 51


def test_a_folder_that_cannot_be_made_is_an_error_at_once(tmp_path: Path) -> None:
    """As the only sink it would run on for months with nothing kept."""
    (tmp_path / "rec").mkdir()
    (tmp_path / "rec/.recording.lock").mkdir()
    for folder in (Path("/proc/x"), tmp_path / "rec"):
        recording = Recording(folder, ALWAYS)
        with pytest.raises(SinkError, match=r"^record://.*: nothing can be recorded there: got .*\. Name another"):
            recording.write()
        recording.close()
