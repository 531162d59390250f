"""`WebAddress`: where the page is served, and to whom."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field

from vidseg.runtime.errors import UsageError

FORM = (
    "Write it as web://127.0.0.1:8080, or web://0.0.0.0:8080#token=SECRET for other machines, and behind a proxy "
    "#names=cams.example.org&token=SECRET."
)

MIN_TOKEN_LENGTH = 16
"""Of printable characters. A token is the only lock of a page that cameras are watched on, and it is not changed often;
16 hexadecimal digits take 10^15 years at the thousand tries a second that one server answers."""

_ADDRESS = re.compile(r"web://(\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z.-]{1,253}):([0-9]{1,5})/?(?:#(.+))?", re.DOTALL)
_OPTIONS = re.compile(r"(?:names=([^&]*)(?:&(?=token=)|$))?(?:token=(.*?)(?:&names=([^&]*))?)?", re.DOTALL)
_LABEL = r"[0-9a-z](?:[0-9a-z-]{0,61}[0-9a-z])?"
_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")

MAX_NAMES = 32


@dataclass(frozen=True, slots=True)
class WebAddress:
    """Where the page is served.

    Attributes:
        host: an IP address without brackets, or `localhost`.
        port: 0 for any that is free.
        token: what a visitor has to know; "" for none. Never to be shown.
        names: in lower case, by which visitors know the page besides, such as a proxy's.
    """

    host: str
    port: int
    token: str = field(default="", repr=False)
    names: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """`web://host:port`, for messages and metrics."""
        return f"web://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """True where only this machine gets there."""
        return is_loopback(self.host)


def web_address(uri: str) -> WebAddress:
    """Take `web://host:port[#token=SECRET][&names=HOST,…]` apart; the two options may stand in any order.

    Raises:
        UsageError: it is no such address, or other machines get there and there is no token. The message does not
            repeat the address, which may hold one.
    """
    found = _ADDRESS.fullmatch(uri)
    options = _OPTIONS.fullmatch(found[3] or "") if found is not None else None
    if found is None or options is None or int(found[2]) > 65535 or None not in {options[1], options[3]}:
        raise UsageError("the page's address is not understood", "", FORM)
    host, token = found[1].strip("[]").lower(), options[2] or ""
    if host != "localhost" and not is_ip(host):
        raise UsageError(f"the page cannot be served at a name, {host}", "", "Give an IP address, or localhost.")
    if token and (len(token) < MIN_TOKEN_LENGTH or not token.isascii() or not token.isprintable() or " " in token):
        raise UsageError(
            "the page's token is too weak",
            "",
            f"Take {MIN_TOKEN_LENGTH} ASCII characters or more: openssl rand -hex 16.",
        )
    text = options[1] if options[3] is None else options[3]
    address = WebAddress(host, int(found[2]), token, frozenset() if text is None else _names(text))
    if not token and (address.names or not address.is_loopback):
        raise UsageError(
            f"{address.name} is open to other machines and has no token",
            "",
            f"Add #token=SECRET to the address, {MIN_TOKEN_LENGTH} characters or more (openssl rand -hex 16), "
            "or serve it at 127.0.0.1 without names.",
        )
    return address


def _names(text: str) -> frozenset[str]:
    names = text.lower().split(",")
    if len(names) > MAX_NAMES or not all(map(_NAME.fullmatch, names)):
        raise UsageError(
            "the page's names are not understood",
            "",
            f"Write host names without a port, {MAX_NAMES} at most: names=cams.example.org,cams.lan.",
        )
    return frozenset(names)


def is_ip(host: str) -> bool:
    """True for an IPv4 or IPv6 address without brackets."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """True for `localhost` and for addresses that only this machine reaches."""
    return host == "localhost" or (is_ip(host) and ipaddress.ip_address(host).is_loopback)
