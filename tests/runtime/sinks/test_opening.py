"""A URI that opens another sink than it names loses the results of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidseg.runtime.errors import SinkError, UsageError
from vidseg.runtime.sinks.masks import MasksSink
from vidseg.runtime.sinks.null import NullSink
from vidseg.runtime.sinks.opening import sink_from_uri
from vidseg.runtime.sinks.video import VideoFileSink


def test_each_uri_opens_its_kind(tmp_path: Path) -> None:
    kinds = {
        "null://": NullSink,
        f"{tmp_path}/v.mp4": VideoFileSink,
        f"{tmp_path}/V.MP4": VideoFileSink,
        f"{tmp_path}/masks/": MasksSink,
        f"{tmp_path}": MasksSink,
    }
    for uri, kind in kinds.items():
        sink = sink_from_uri(uri, ())
        assert type(sink) is kind, uri
        sink.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "uri",
    [
        "gopher://user:secret@host/live",
        "widnow://",
        "",
        "v.avi",
        "masks",
        "window",
        "null://x",
        "rtsp:/u:secret@host/x",
        "rtsp:/u:secret://@host",
        "u:secret@host",
        "/none/u:secret@host.mp4",
    ],
)
def test_what_is_not_understood_is_refused_with_what_is(uri: str) -> None:
    with pytest.raises(UsageError, match=r"window://, null://, FILE\.mp4, FOLDER/") as caught:
        sink_from_uri(uri, ())
    assert "secret" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_name_that_the_system_does_not_take_is_one_error() -> None:
    for uri in ("a" * 300 + ".mp4", "a" * 300 + "/", "a\0b.mp4"):
        with pytest.raises(SinkError, match="cannot be made"):
            sink_from_uri(uri, ())


def test_a_sink_whose_place_is_missing_is_refused(tmp_path: Path) -> None:
    for uri in (f"{tmp_path}/missing/v.mp4", f"{tmp_path}/missing/masks/"):
        with pytest.raises(SinkError, match="there is no folder"):
            sink_from_uri(uri, ())
