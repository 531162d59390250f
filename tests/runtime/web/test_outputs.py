"""A recording that has stopped must not be found out about when it is needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtime.web.site import CLASSES, Site, result_of, site
from vidseg.runtime.sinks.null import NullSink
from vidseg.runtime.sinks.publish import PublishSink
from vidseg.runtime.sinks.recording.options import RecordingOptions
from vidseg.runtime.sinks.recording.sink import RecordingSink

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")

FULL = RecordingOptions(min_free_mib=1e9)


def record(served: Site, folder: Path, options: RecordingOptions, count: int = 3) -> RecordingSink:
    """A recording beside the page, of some results."""
    sink = RecordingSink(folder, CLASSES, options)
    served.pipeline.outputs = [NullSink(), sink]
    for index in range(count):
        result = result_of(index, size_wh=(320, 240))
        sink.write(result, result.frame.image)
    return sink


def test_status_and_metrics_tell_what_a_full_disk_has_cost(tmp_path: Path) -> None:
    with site() as served:
        sink = record(served, tmp_path / "rec", FULL)
        (found,) = served.json("/api/status")["outputs"].items()
        text = served.request("/metrics")[2].decode().splitlines()
        sink.close()
    assert found[0] == sink.name
    assert (found[1]["recorded"], found[1]["not_recorded"], found[1]["size_bytes"]) == (0, 3, 0)
    assert found[1]["trouble"]
    assert f'vidseg_recording_frames_missing_total{{sink="{sink.name}"}} 3.0' in text
    assert f'vidseg_output_troubled{{sink="{sink.name}"}} 1.0' in text


def test_a_recording_that_works_is_in_no_trouble(tmp_path: Path) -> None:
    with site() as served:
        sink = record(served, tmp_path / "rec", RecordingOptions())
        sink.close()
        text = served.request("/metrics")[2].decode().splitlines()
    assert f'vidseg_recording_frames_recorded_total{{sink="{sink.name}"}} 3.0' in text
    assert f'vidseg_output_troubled{{sink="{sink.name}"}} 0.0' in text
    size = next(line for line in text if line.startswith("vidseg_recording_bytes"))
    assert float(size.split()[-1]) == sum(path.stat().st_size for path in (tmp_path / "rec").rglob("*.mp4"))


def test_a_stream_that_is_not_there_says_so_and_keeps_its_password() -> None:
    with site() as served:
        sink = PublishSink("rtsp://user:secret@127.0.0.1:9/yard")
        served.pipeline.outputs = [sink]
        status, metrics = served.request("/api/status")[2].decode(), served.request("/metrics")[2].decode()
    assert "not connected yet" in status
    assert 'vidseg_publishing_pictures_published_total{sink="rtsp://127.0.0.1:9/yard"} 0.0' in metrics
    assert "secret" not in status + metrics
