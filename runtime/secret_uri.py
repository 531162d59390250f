"""URIs that may hold a password: what is given to a library, what may be shown, and cleaning what others say of them.

People write passwords as they are, with `@ / ? # [` in them, which RFC 3986 wants encoded. Here the last `@` that a
host can follow ends the credentials, so that no part of a password is ever taken for a host or a path.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from vidseg.runtime.errors import UsageError

HIDDEN = "***"

MAX_LENGTH = 4096

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,31})://")
_HOST = r"(?:\[[0-9A-Fa-f:.]{2,45}(?:%[0-9A-Za-z._~-]{1,32})?\]|[^\s@/?#\[\]:]{1,255})(?::[0-9]{1,5})?"
_PLACE = re.compile(rf"({_HOST})([/?#].*)?", re.DOTALL)
_SECRET_KEY = re.compile(r"pass|pwd|token|key|auth|secret|sig|cred|user|login|sess|code|jwt|pin\b", re.IGNORECASE)
_PLAIN_VALUE = re.compile(r"[A-Za-z0-9_.:-]{0,15}")


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
        """What a library says, without what is secret."""
        for secret in self.secrets:
            text = text.replace(secret, HIDDEN)
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
        raise UsageError(
            f"a {scheme[1].lower()}:// address has no host", "", f"Write it as {scheme[1].lower()}://host:554/path."
        )
    host, tail = place[1], place[2] or ""
    if int(_port(host) or 1) > 65535:
        raise UsageError(f"{scheme[1].lower()}://: there is no such port", _port(host), "Take one up to 65535.")
    shown_tail, hidden = _without_secrets(tail)
    user, colon, password = credentials.partition(":")
    encoded = _encoded(user) + colon + _encoded(password) + "@" if credentials else ""
    prefix = f"{scheme[1].lower()}://"
    secrets = {credentials, f"{_encoded(user)}{colon}{_encoded(password)}", password, unquote(password)}
    secrets |= {_encoded(password), user if len(user) > 2 else "", *hidden, *map(unquote, hidden)}
    return SecretUri(
        f"{prefix}{encoded}{host}{tail}",
        f"{prefix}{host}{shown_tail}",
        tuple(sorted(secrets - {""}, key=len, reverse=True)),
    )


def _split(rest: str) -> tuple[str, re.Match[str] | None]:
    """Credentials, and host and what follows it: behind the last `@` that they can stand behind."""
    for at in reversed([found.start() for found in re.finditer("@", rest)]):
        place = _PLACE.fullmatch(rest[at + 1 :])
        if place is not None and (":" in rest[:at] or not re.search(r"[/?#]", rest[:at])):
            return rest[:at], place
    return "", _PLACE.fullmatch(rest)


def _port(host: str) -> str:
    found = re.search(r":([0-9]{1,5})$", host)
    return found[1] if found else ""


def _encoded(text: str) -> str:
    """Percent-encoded once: what is encoded already stays."""
    return quote(unquote(text) if re.fullmatch(r"(?:[^%]|%[0-9A-Fa-f]{2})*", text) else text, safe="")


def _without_secrets(tail: str) -> tuple[str, list[str]]:
    """Path and query as they may be shown, and the values that may not."""
    path, mark, query = tail.partition("?")
    hidden: list[str] = []
    shown = []
    for pair in query.split("&") if mark else []:
        key, equals, value = pair.partition("=")
        if equals and (_SECRET_KEY.search(key) or not _PLAIN_VALUE.fullmatch(value)):
            hidden.append(value)
            value = HIDDEN
        elif not equals and not _PLAIN_VALUE.fullmatch(key):
            hidden.append(key)
            key = HIDDEN
        shown.append(key + equals + value)
    return path + mark + "&".join(shown), [value for value in hidden if value]
