"""A name that opens something else than it says runs a model on the wrong camera."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vidseg.runtime.errors import UsageError
from vidseg.runtime.sources.opening import source_from_uri
from vidseg.runtime.sources.streams.source import StreamSource

PAGE = (Path(__file__).parents[4] / "docs/sources-and-sinks.md").read_text()


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("gst:videotestsrc", "gst:videotestsrc"),
        ("gst:x location=rtsp://u:secret@h/x ! decodebin#stall_s=2", "gst:x location=rtsp://h/x ! decodebin"),
        ("csi://1#size=1280x720&fps=30&rotate=180&stall_s=2", "csi://1"),
        ("csi://0", "csi://0"),
        ("rtsp://u:secret@h/x#hardware=nvdec", "rtsp://h/x"),
    ],
)  # fmt: skip
def test_each_is_a_live_source_with_a_name_that_may_be_shown(uri: str, name: str) -> None:
    source = source_from_uri(uri)
    assert isinstance(source, StreamSource)
    assert (source.name, source.live) == (name, True)


@pytest.mark.parametrize(
    "uri",
    ["gst:", "gst:videotestsrc#transport=udp", "gst:videotestsrc#stall_s=0", "gst:x user-pw=a#secret=c", "csi://",
     "csi://front", "csi://0#size=0x0", "csi://0#size=big", "csi://0#fps=0", "csi://0#rotate=45", "csi://0#format=x",
     "csi://0?fps=30", "csi://0#open_s=x", "http://u:secret@h/x#hardware=nvdec"],
)  # fmt: skip
def test_what_is_not_understood_is_refused_in_one_line(uri: str) -> None:
    with pytest.raises(UsageError) as caught:
        source_from_uri(uri)
    assert "secret" not in str(caught.value)


def test_every_name_that_the_page_lists_is_taken() -> None:
    names = re.findall(r"^\| `(.*?)` \|", PAGE.split("\n## GStreamer\n")[1].split("\n## ")[0], flags=re.MULTILINE)
    assert len(names) == 4
    assert all(isinstance(source_from_uri(name), StreamSource) for name in names)
