"""URIs that may hold a password: what is given to a library, what may be shown, and cleaning what others say of them.

People write passwords as they are, with `@ / ? # [` in them, which RFC 3986 wants encoded. Here the last `@` that a
host can follow ends the credentials, so that no part of a password is ever taken for a host or a path.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from vidseg.runtime.errors import UsageError

HIDDEN = "***"

MAX_LENGTH = 4096

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,31})://")
_HOST = r"(?:\[[0-9A-Fa-f:.]{2,45}(?:%[0-9A-Za-z._~-]{1,32})?\]|[\w.-]{1,255})(?::[0-9]{1,5})?"
_PLACE = re.compile(rf"({_HOST})([/?#].*)?", re.DOTALL)
_SECRET_KEY = re.compile(r"pass|pwd|token|key|auth|secret|sig|cred|user|login|sess|code|jwt|pin\b", re.IGNORECASE)
_PLAIN_VALUE = re.compile(r"[A-Za-z0-9_.:-]{0,15}")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_.:-]{0,24}")
_MAX_NAME = 300
_MIN_REST = 3
"""A shorter beginning or end of a secret gives nothing away, and is in many a word."""


@dataclass(frozen=True, slots=True)
class SecretUri:
    """A URI of a network stream.

    Attributes:
        uri: for the library that opens it, credentials percent-encoded. Never to be shown.
        name: for people, logs, metrics and pages: without credentials, and without what a query may hide.
        secrets: what must not be shown in any form, longest first.
    """

    uri: str = field(repr=False)
    name: str
    secrets: tuple[str, ...] = field(repr=False)

    def clean(self, text: str) -> str:
        """What a library says, without what is secret, also where it was cut off in the middle of that."""
        for secret in self.secrets:
            text = text.replace(secret, HIDDEN)
            for length in range(min(len(secret), len(text)) - 1, _MIN_REST, -1):
                if text.endswith(secret[:length]):
                    text = text[:-length] + HIDDEN
                if text.startswith(secret[-length:]):
                    text = HIDDEN + text[length:]
        return text

    @property
    def scheme(self) -> str:
        """Such as `rtsp`, in lower case."""
        return self.uri.partition("://")[0]


def secret_uri(text: str) -> SecretUri:
    """Take a URI of the form `scheme://[user[:password]@]host[:port][/path][?query]` apart.

    Raises:
        UsageError: it is no such URI. The message does not repeat it.
    """
    scheme = _SCHEME.match(text)
    if scheme is None or len(text) > MAX_LENGTH or not text.isprintable():
        raise UsageError("a stream's address is not understood", "", "Write it as rtsp://user:password@host:554/path.")
    rest = text[scheme.end() :]
    credentials, place = _split(rest)
    if place is None:
        raise UsageError("a stream's address has no host", "", "Write it as rtsp://user:password@host:554/path.")
    host, tail = place[1], place[2] or ""
    if int(_port(host) or 1) > 65535:
        raise UsageError("a stream's address has no such port", _port(host), "Take one up to 65535.")
    shown_tail, hidden = _without_secrets(tail)
    user, colon, password = credentials.partition(":")
    encoded = _encoded(user) + colon + _encoded(password) + "@" if credentials else ""
    prefix = f"{scheme[1].lower()}://"
    secrets = {credentials, f"{_encoded(user)}{colon}{_encoded(password)}", password, unquote(password)}
    secrets |= {_encoded(password), user if len(user) > 2 else "", *hidden, *map(unquote, hidden)}
    return SecretUri(
        f"{prefix}{encoded}{host}{tail}",
        _shortened(f"{prefix}{host}{shown_tail}"),
        tuple(sorted(secrets - {""}, key=len, reverse=True)),
    )


def _split(rest: str) -> tuple[str, re.Match[str] | None]:
    """Credentials, and host and what follows it.

    With a `:` before the last `@`, all between the two may be a password: what follows is the host, or there is none.
    """
    credentials, at, place = rest.rpartition("@")
    if at and (":" in credentials or not re.search(r"[/?#]", credentials)):
        return credentials, _PLACE.fullmatch(place)
    return "", _PLACE.fullmatch(rest)


def _port(host: str) -> str:
    found = re.search(r":([0-9]{1,5})$", host)
    return found[1] if found else ""


def _encoded(text: str) -> str:
    """Percent-encoded once: what is encoded already stays."""
    return quote(unquote(text) if re.fullmatch(r"(?:[^%]|%[0-9A-Fa-f]{2})*", text) else text, safe="")


def _without_secrets(tail: str) -> tuple[str, list[str]]:
    """Path, query and fragment as they may be shown, and the values that may not: parameters of a path's parts (RFC
    3986, 3.3) and what stands behind `?`, `&` and `#`."""
    path, mark, rest = re.fullmatch(r"([^?#]*)([?#]?)(.*)", tail, re.DOTALL).groups()  # type: ignore[union-attr]
    hidden: list[str] = []

    def shown(found: re.Match[str]) -> str:
        key, equals, value = found[2].partition("=")
        if equals and (_SECRET_KEY.search(key) or not _PLAIN_VALUE.fullmatch(value)):
            hidden.append(value)
            value = HIDDEN
        if not (_PLAIN_KEY if equals else _PLAIN_VALUE).fullmatch(key):
            hidden.append(key)
            key = HIDDEN
        return found[1] + key + equals + value

    shown_path = re.sub(r"(;)([^;/]*=[^;/]*)", shown, path)
    shown_rest = re.sub(r"([?#&]|^)([^?#&]*)", shown, mark + rest) if mark else ""
    return shown_path + shown_rest, [value for value in hidden if value]


def _shortened(name: str) -> str:
    """A name that still differs from others."""
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 10]}…{zlib.crc32(name.encode()):08x}"
