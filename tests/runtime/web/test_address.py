"""A page that anybody can watch a camera on, or a token in a message, is what a user must never get."""

from __future__ import annotations

import pytest

from vidseg.runtime.errors import UsageError
from vidseg.runtime.web.address import web_address

TOKEN = "0123456789abcdef"


@pytest.mark.parametrize(
    ("uri", "host", "port", "name"),
    [
        ("web://127.0.0.1:8080", "127.0.0.1", 8080, "web://127.0.0.1:8080"),
        ("web://127.0.0.1:8080/", "127.0.0.1", 8080, "web://127.0.0.1:8080"),
        ("web://localhost:0", "localhost", 0, "web://localhost:0"),
        ("web://[::1]:8080", "::1", 8080, "web://[::1]:8080"),
        (f"web://0.0.0.0:80#token={TOKEN}", "0.0.0.0", 80, "web://0.0.0.0:80"),
        (f"web://[::]:80#token={TOKEN}", "::", 80, "web://[::]:80"),
    ],
)
def test_addresses_are_taken_apart_and_named_without_the_token(uri: str, host: str, port: int, name: str) -> None:
    address = web_address(uri)
    assert (address.host, address.port, address.name) == (host, port, name)
    assert TOKEN not in repr(address)
    assert address.token == uri.partition("#token=")[2]


@pytest.mark.parametrize(
    ("options", "token", "names"),
    [
        (f"names=cams.example.org&token={TOKEN}", TOKEN, {"cams.example.org"}),
        (f"token={TOKEN}&names=Cams.Example.org,cams,192.168.1.5", TOKEN, {"cams.example.org", "cams", "192.168.1.5"}),
        (f"token={TOKEN}&name=x", f"{TOKEN}&name=x", set()),
        (f"token=a,b=&#?{TOKEN}", f"a,b=&#?{TOKEN}", set()),
    ],
)
def test_options_stand_in_any_order_and_a_token_may_have_any_signs(options: str, token: str, names: set[str]) -> None:
    address = web_address(f"web://127.0.0.1:80#{options}")
    assert (address.token, set(address.names), address.name) == (token, names, "web://127.0.0.1:80")


@pytest.mark.parametrize(
    "names",
    ["", ",", "cams.example.org:443", "http://cams", "a b", "-a", "a-", "a..b", "*", "x" * 64, ",".join("x" * 33), "ä"],
)
def test_names_that_are_none_are_refused(names: str) -> None:
    for options in (f"names={names}&token={TOKEN}", f"token={TOKEN}&names={names}"):
        with pytest.raises(UsageError) as caught:
            web_address(f"web://127.0.0.1:80#{options}")
        assert TOKEN not in str(caught.value)


def test_a_page_that_a_proxy_opens_to_others_needs_a_token() -> None:
    with pytest.raises(UsageError, match="no token"):
        web_address("web://127.0.0.1:80#names=cams.example.org")
    for options in ("", f"names=a&token={TOKEN}&names=b", "names=a&", "&names=a"):
        with pytest.raises(UsageError, match="not understood"):
            web_address(f"web://127.0.0.1:80#{options}")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "[::]", "[2001:db8::1]"])
def test_what_is_open_to_other_machines_needs_a_token(host: str) -> None:
    with pytest.raises(UsageError, match=r"#token=.*127\.0\.0\.1"):
        web_address(f"web://{host}:8080")


@pytest.mark.parametrize(
    "uri",
    [
        "web://", "web://127.0.0.1", "web://127.0.0.1:65536", "web://camera.example:80", "web://127.0.0.1:80/x",
        "web://127.0.0.1:80#secret-secret-sec", "web://user:secret-secret-sec@127.0.0.1:80", "web://[::1:80",
        "web://0.0.0.0:80#token=secret", "web://0.0.0.0:80#token=secret with blanks in it",
        "web://0.0.0.0:80#token=secret\nsecret-secret-secret", "web://1.2.3:80#token=secret-secret-sec", "http://x:1",
    ],
)  # fmt: skip
def test_other_addresses_are_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(UsageError) as caught:
        web_address(uri)
    assert "secret" not in str(caught.value)
