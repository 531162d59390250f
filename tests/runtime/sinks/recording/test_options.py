"""A recording that was asked for wrongly is found out about at once, not when it is missed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidseg.runtime.errors import UsageError
from vidseg.runtime.sinks.recording.names import folder_name_of, segment_name_of, segment_number_of
from vidseg.runtime.sinks.recording.options import RecordingOptions, parse_record_uri


@pytest.mark.parametrize(
    ("uri", "folder", "options"),
    [
        ("record:///var/video", "/var/video", RecordingOptions()),
        ("record://video/here", "video/here", RecordingOptions()),
        ("record://a#b#picture=frame", "a#b", RecordingOptions(picture="frame")),
        (
            "record://video#segment_s=30&quota_gib=20&min_free_mib=1&event=car&event=wet+road&pre_s=3&post_s=4&pre_mib=8",
            "video",
            RecordingOptions(30, 20, 1, ("car", "wet road"), 3, 4, 8),
        ),
    ],
)
def test_an_address_says_where_and_how(uri: str, folder: str, options: RecordingOptions) -> None:
    assert parse_record_uri(uri) == (Path(folder), options)


@pytest.mark.parametrize(
    "uri",
    [
        "record://", "record://#segment_s=5", "video", "record://v#segment_s", "record://v#segment_s=long",
        "record://v#length=5", "record://v#events=car", "record://v#segment_s=5&segment_s=6", "record://a\0b",
        "record://v#event=a%0ab", "record://v#event=" + "a" * 65, "record://v#" + "a" * 5000 + "=1",
    ],
)  # fmt: skip
def test_an_address_that_is_none_is_refused(uri: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_record_uri(uri)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("segment_s=0", "segment_s is out of range"),
        ("segment_s=nan", "segment_s is out of range"),
        ("min_free_mib=-1", "min_free_mib is out of range"),
        ("picture=mask", "overlay or frame: got mask"),
        ("quota_gib=0.01", r"holds no segment of 60 s: got 10 MiB\. Use quota_gib=0.03 or more"),
        ("event=car&pre_s=60", "do not fit into a segment"),
    ],
)
def test_values_that_make_no_sense_are_told(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_record_uri(f"record://video#{text}")


@given(st.text(max_size=200), st.text(max_size=200))
def test_folders_of_sources_are_safe_and_never_shared(one: str, other: str) -> None:
    name = folder_name_of(one)
    assert name.isascii()
    assert name == Path(name).name
    assert not name.startswith(".")
    assert len(name) < 100
    assert (name == folder_name_of(other)) == (one == other)


@given(st.integers(1, 10**9), st.integers(1, 10**9), st.integers(-(2**70), 2**70), st.integers(-(2**70), 2**70))
def test_names_of_segments_are_in_order_whatever_the_clock_does(
    one: int, other: int, wall_ns: int, other_wall_ns: int
) -> None:
    name = segment_name_of(one, wall_ns)
    assert segment_number_of(name) == one
    if one < other < 10**8:
        assert name < segment_name_of(other, other_wall_ns)
