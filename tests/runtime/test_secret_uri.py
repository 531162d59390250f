"""A camera's password that reaches a log or a page is everybody's; one that is cut at its `/` opens nothing."""

from __future__ import annotations

from urllib.parse import quote, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidseg.runtime.errors import UsageError
from vidseg.runtime.secret_uri import HIDDEN, secret_uri

HOSTS = st.sampled_from(
    ["camera", "192.168.1.20", "cam-3.example.org", "[fe80::1]", "[2001:db8::a:b]", "[fe80::1%eth0]"]
)
PORTS = st.sampled_from(["", ":554", ":8554"])
TAILS = st.sampled_from(["", "/", "/stream1", "/cam/realmonitor?channel=1&subtype=0", "?x=1", "/a/b.sdp#t"])
PASSWORDS = st.text(st.sampled_from("aZ9@/?#[]:%&=+ äß-_.~!$'()*,;"), min_size=5, max_size=20).filter(str.isprintable)
USERS = st.text(st.sampled_from("abcXYZ09.-_"), min_size=1, max_size=12)


@given(USERS, PASSWORDS, HOSTS, PORTS, TAILS)
def test_whatever_is_in_a_password_it_reaches_the_camera_and_nobody_else(
    user: str, password: str, host: str, port: str, tail: str
) -> None:
    for written in (password, quote(password, safe="")):
        found = secret_uri(f"RTSP://{user}:{written}@{host}{port}{tail}")
        assert found.name == f"rtsp://{host}{port}{tail}"
        parts = urlsplit(found.uri.replace("%eth0", ""))
        assert unquote(parts.username or "") == user
        assert unquote(parts.password or "") == unquote(written)
        assert parts.netloc.endswith(f"@{host.replace('%eth0', '')}{port}")
        said = f"cannot open {found.uri} ({user}:{written}@{host}): {written}, {unquote(written)} refused; {found!r}"
        cleaned = found.clean(said)
        assert password not in cleaned
        assert quote(password, safe="") not in cleaned


@pytest.mark.parametrize(
    ("tail", "shown"),
    [
        ("/live?token=abc", f"/live?token={HIDDEN}"),
        ("/live?channel=2&sessionid=1", f"/live?channel=2&sessionid={HIDDEN}"),
        ("/x.m3u8?e=1&h=0123456789abcdef0123", f"/x.m3u8?e=1&h={HIDDEN}"),
        ("/x?aVeryLongKeyThatStandsAlone", f"/x?{HIDDEN}"),
        ("/live#token=abc&t=1", f"/live#token={HIDDEN}&t=1"),
        ("/live;token=abc/x", f"/live;token={HIDDEN}/x"),
        ("/x?aVeryLongKeyThatStandsBeforeANumber=1", f"/x?{HIDDEN}={HIDDEN}"),
        ("/x?user=a&pwd=&subtype=0", f"/x?user={HIDDEN}&pwd={HIDDEN}&subtype=0"),
    ],
)
def test_what_a_query_may_hide_is_not_shown_and_still_sent(tail: str, shown: str) -> None:
    found = secret_uri(f"http://camera{tail}")
    assert (found.uri, found.name) == (f"http://camera{tail}", f"http://camera{shown}")


def test_what_was_cut_off_in_the_middle_of_a_password_is_clean_too() -> None:
    found = secret_uri("rtsp://me:pass@word@camera/x")
    said = f"cannot open {found.uri} again"
    for end in range(1, len(said)):
        for part in (said[:end], said[end:]):
            assert "pass%" not in found.clean(part)
            assert "word" not in found.clean(part)


def test_a_long_address_has_a_short_name_of_its_own() -> None:
    names = {secret_uri(f"http://camera/{'a' * 2000}{end}").name for end in "bc"}
    assert len(names) == 2
    assert all(len(name) <= 300 for name in names)


def test_two_channels_of_one_recorder_have_two_names() -> None:
    first, second = (secret_uri(f"rtsp://a:b@10.0.0.2/cam?channel={n}&subtype=0").name for n in (1, 2))
    assert first != second


@pytest.mark.parametrize(
    "text",
    ["", "camera", "rtsp://", "rtsp:///x", "rtsp://u:secret@", "rtsp://u:secret@host:99999/x", "rtsp://u:secret@[::1/x",
     "rtsp://u:secret@ho st/x", "rtsp://u:secret\n@host/x", "rtsp://u:secret@host:port/x",
     "rtsp://u:554/secret@ho st/x", "rtsp://u:a@[::1]/secret@ho st/",
     "rtsp://u:80/secret@host:x/y", "x" * 5000 + "://h"],
)  # fmt: skip
def test_what_is_no_address_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        secret_uri(text)
    assert "secret" not in str(caught.value)


@given(st.text(max_size=80))
def test_any_text_is_an_address_or_one_error(text: str) -> None:
    for prefix in ("", "rtsp://", "rtsp://u:p@"):
        try:
            found = secret_uri(prefix + text)
        except UsageError:
            continue
        assert secret_uri(found.uri).uri == found.uri, "what is encoded is not encoded again"
