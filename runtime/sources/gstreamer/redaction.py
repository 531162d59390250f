"""Descriptions of pipelines that may hold a password: what may be shown of them.

Words are told apart as GStreamer does it (gst/parse/parse.l), or a secret would hide behind a quotation mark.
"""

from __future__ import annotations

import re

from vidseg.runtime.errors import UsageError
from vidseg.runtime.secret_uri import HIDDEN, MAX_LENGTH, SecretUri, secret_uri

_KEY = r"([0-9A-Za-z_][\w%:-]*)(\s*=\s*)"
_ASSIGNMENT = re.compile(_KEY)
_WORD = re.compile(r"(?:\\.|\S)+")
_QUOTED = re.compile(r""""(?:\\"|[^"])*"|'(?:\\'|[^'])*'""")
_PRIVATE_NAME = (
    r"(?:[\w%:-]*[%:_-])?(?:auth|authorization|cookies?|cred|credentials|headers|jwt|login|pass|passphrase|passwd|password|pin"
    r"|proxy|psk|pw|pwd|secret|token|user|username)(?:[%:_-][\w%:-]*)?|(?:[\w%:-]*[%:_-])?key"
)
_PRIVATE = re.compile(_PRIVATE_NAME, re.IGNORECASE)
_PRIVATE_WITHIN = re.compile(rf"(?<![\w%:-])({_PRIVATE_NAME})(\s*=\s*)(\S+)", re.IGNORECASE)
"""Any that are in a value, or would be if words were told apart in another way."""


def secret_description(text: str) -> SecretUri:
    """Take a description apart: `uri` is all of it, `name` has neither passwords nor the credentials of addresses.

    Raises:
        UsageError: it is none. The message does not repeat it.
    """
    if not text or len(text) > MAX_LENGTH or not text.isprintable():
        do = "Write it as gst:videotestsrc is-live=true, without a sink."
        raise UsageError("a GStreamer description is not understood", "", do)
    secrets: set[str] = set()
    shown, position = "", 0
    while position < len(text):
        piece = _piece(text, position, secrets)
        shown, position = shown + piece[0], piece[1]
    shown = _PRIVATE_WITHIN.sub(lambda found: _without_value(found, secrets), shown)
    ordered = sorted(secrets - {""}, key=len, reverse=True)
    return SecretUri(text, f"gst:{shown}", tuple(ordered))


def _piece(text: str, position: int, secrets: set[str]) -> tuple[str, int]:
    """What may be shown of the space, word or assignment that begins at a position, and where it ends."""
    assignment = _ASSIGNMENT.match(text, position)
    first = assignment.end() if assignment else position
    found = [pattern.match(text, first) for pattern in (_WORD, _QUOTED)]
    end = max((match.end() for match in found if match), default=first)
    if end == first:
        return text[position : first + 1], first + 1
    before, value = text[position:first], text[first:end]
    key = assignment[1] if assignment else ""
    return before + _shown_value(key, value, secrets), end


def _shown_value(key: str, value: str, secrets: set[str]) -> str:
    plain = _unquoted(value)
    if not _PRIVATE.fullmatch(key):
        if not re.search("://.*[@?]|:.*@", plain):
            return value
        try:
            address = secret_uri(plain)
        except UsageError:
            pass
        else:
            secrets |= set(address.secrets)
            return address.name
    secrets |= {value, plain}
    return HIDDEN


def _without_value(found: re.Match[str], secrets: set[str]) -> str:
    secrets |= {found[3], _unquoted(found[3])} - {HIDDEN}
    return found[1] + found[2] + HIDDEN


def _unquoted(value: str) -> str:
    """A value without the quotes and backslashes of the launch syntax."""
    inner = value[1:-1] if _QUOTED.fullmatch(value) else value
    return re.sub(r"\\(.)", r"\1", inner)
