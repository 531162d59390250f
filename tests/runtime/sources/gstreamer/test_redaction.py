"""A camera's password in a pipeline's description is as secret as one in an address."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidseg.runtime.errors import UsageError
from vidseg.runtime.secret_uri import HIDDEN
from vidseg.runtime.sources.gstreamer.descriptions import quoted
from vidseg.runtime.sources.gstreamer.redaction import secret_description
from vidseg.runtime.sources.gstreamer.sources import gst_source

PASSWORDS = st.text(st.sampled_from("aZ9@/?#[]:%&=+ \"'\\!-_.~$()*,;"), min_size=6, max_size=20)
UNQUOTED = st.text(st.sampled_from("aZ9%&=+!-_.~$()*,;"), min_size=6, max_size=20)
WRITTEN = st.sampled_from(["user-pw={}", "user-pw = {}", "passphrase={}", "extra-headers={}", "access-key={}"])


@given(PASSWORDS, WRITTEN)
def test_whatever_is_in_a_password_it_is_not_shown(password: str, written: str) -> None:
    assignment = written.format(quoted(password))
    found = secret_description(f"rtspsrc location=rtsp://camera/x {assignment} ! decodebin")
    assert found.uri == f"rtspsrc location=rtsp://camera/x {assignment} ! decodebin", "it is all there for GStreamer"
    assert found.name == f"gst:rtspsrc location=rtsp://camera/x {written.format(HIDDEN)} ! decodebin"
    assert password not in found.clean(f"cannot set property to {password} or {quoted(password)}")
    assert password not in repr(found)


@given(UNQUOTED, st.sampled_from(["name='a user-pw={}", 'b"c pin={}', 'x="a,token={}', "y=z\\ pwd={}"]))
def test_a_quotation_mark_that_is_never_closed_hides_nothing(password: str, written: str) -> None:
    found = secret_description(f"rtspsrc {written.format(password)} ! decodebin")
    assert found.name == f"gst:rtspsrc {written.format(HIDDEN)} ! decodebin"
    assert password not in found.clean(f"cannot set property to {password}")


@given(UNQUOTED)
def test_the_credentials_of_an_address_are_not_shown(password: str) -> None:
    for location in (f"location=rtsp://user:{password}@host/x", f'uri = "rtsp://user:{password}@host/x"'):
        found = secret_description(f"rtspsrc {location} latency=0 ! decodebin")
        assert password not in found.name
        assert "rtsp://host/x" in found.name
        assert found.name.endswith(" latency=0 ! decodebin")
        assert password not in found.clean(f"cannot open rtsp://user:{password}@host/x")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://u:secret@h/x ! decodebin", "rtsp://h/x ! decodebin"),
        ("x location=http://h/x?token=secret ! y", f"x location=http://h/x?token={HIDDEN} ! y"),
        ("souphttpsrc proxy=u:secret@h:80 ! jpegdec", f"souphttpsrc proxy={HIDDEN} ! jpegdec"),
        ("x3 turn-server=turn://u:secret@h ! y", "x3 turn-server=turn://h ! y"),
        ('x user-pw="secret closed ! never', f"x user-pw={HIDDEN} closed ! never"),
        ('x name="y user-pw=secret ! z', f'x name="y user-pw={HIDDEN} ! z'),
        ('x struct="a,pwd=secret ! z"', f'x struct="a,pwd={HIDDEN} ! z"'),
        ('x struct="a,pwd=***secret ! z', f'x struct="a,pwd={HIDDEN} ! z'),
        (r"x user-pw=se\ cr\"secret ! y", f"x user-pw={HIDDEN} ! y"),
        ("x location=rtsp://u:secret@ ! y", f"x location={HIDDEN} ! y"),
    ],
)  # fmt: skip
def test_forms_of_secrets(text: str, shown: str) -> None:
    found = secret_description(text)
    assert found.name == f"gst:{shown}"
    assert "secret" not in found.clean(text)


@pytest.mark.parametrize(
    "text",
    [
        "v4l2src device=/dev/video0 ! image/jpeg,width=1280,framerate=30/1 ! jpegdec",
        "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM) ! nvvidconv ! video/x-raw,format=BGRx",
        "videotestsrc ! x264enc key-int-max=30 ! h264parse ! openh264dec",
        "rtspsrc location=rtsp://camera:554/x protocols=tcp ! decodebin",
    ],
)
def test_what_is_not_secret_stays_as_it_is(text: str) -> None:
    found = secret_description(text)
    assert (found.name, found.secrets) == (f"gst:{text}", ())


@pytest.mark.parametrize("text", ["", "x" * 5000, "videotestsrc\x00", "user-pw=secret\n"])
def test_what_is_no_description_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        secret_description(text)
    assert "secret" not in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_a_source_or_one_error(text: str) -> None:
    try:
        source = gst_source(f"gst:{text}")
    except UsageError:
        return
    assert source.name.startswith("gst:")
