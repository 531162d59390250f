"""Addresses of sources and sinks, with passwords as people choose them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from urllib.parse import quote

from tests.fuzz.mutation import damaged_text

PARTS = ("zebra7", "quokka8", "ocelot9")
"""Of each password. None of them is in anything else here, so that one that is seen was given away."""

SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "srt", "tcp", "udp", "RTSP", "Http")
HOSTS = (
    "camera",
    "10.0.0.5",
    "cam-3.example.org",
    "[fe80::1]",
    "[2001:db8::a:b]",
    "[fe80::1%eth0]",
    "[::ffff:1.2.3.4]",
)
PORTS = ("", ":554", ":8554", ":1", ":65535")
PATHS = ("", "/", "/live", "/cam/realmonitor", "/a/b.sdp", "/Streaming/Channels/101", "/x;y", "/a%20b", "/ä")
QUERIES = ("", "", "?channel=1&subtype=0", "?a", "?", "?x=1&&y", "?a=b=c")
SECRET_QUERIES = (
    "token={}",
    "channel=1&pwd={}",
    "sig={}&x=1",
    "{}",
    "auth={}",
    "Password={}",
    "e=1&h={}",
    "a=1;token={}",
)
OPTIONS = ("", "", "", "#transport=udp", "#transport=tcp&stall_s=5&open_s=10", "#hardware=cuda", "#stall_s=0.1")

NETWORK = (
    "rtsp://me:zebra7@camera:554/live?token=ocelot9#transport=udp&stall_s=5", "http://10.0.0.5/x.mjpg?pwd=quokka8",
    "srt://camera:9000?passphrase=ocelot9", "udp://@239.0.0.1:1234", "rtsp://me:zebra7@[fe80::1%eth0]/x",
    "rtsp://me:1234/zebra7@camera/live", "rtsp://me:zebra7@quokka8@camera",
)  # fmt: skip

LOCAL = (
    "scene://street?size=64x48&fps=30&seed=0&frames=300&pace=max&noise=1", "scene://street", "scene://street?pace=live",
    "/dev/video0?size=1280x720&fps=30&format=MJPG&rotate=90", "/dev/v4l/by-id/usb-Cam-video-index0?rotate=0",
    "/dev/video0", "csi://0", "csi://1#size=1280x720", "clip.mp4", "folder/", "a.png",
)  # fmt: skip

SINKS = (
    "null://", "jsonl://-", "out.jsonl", "out.mp4", "masks/", "rtsp://me:zebra7@camera:8554/live?token=ocelot9",
    "rtsps://camera/x", "record://video#segment_s=60&quota_gib=20&min_free_mib=500&pre_s=5&post_s=10&picture=frame",
    "record:///tmp#event=car&event=person&segment_s=30", "record://a#b#pre_mib=4", "record://x",
    "web://127.0.0.1:8080", "web://[::1]:0/", "web://0.0.0.0:80#token=zebra7quokka8ocelot9",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Address:
    """An address, and what must not be seen of it."""

    text: str
    core: str
    secrets: tuple[str, ...]


def whole_address(rng: random.Random) -> Address:
    """An address with a password or a token, or both, that is written as people write it."""
    scheme, host = rng.choice(SCHEMES), rng.choice(HOSTS)
    password = password_of(rng)
    written = quote(password, safe="") if rng.random() < 0.3 else password
    core = f"{rng.choice(('me', 'admin', '', 'a.b-c'))}:{written}@{host}"
    tail = rng.choice(PORTS) + rng.choice(PATHS)
    if rng.random() < 0.4:
        tail += "?" + rng.choice(SECRET_QUERIES).format(f"{PARTS[0]}.{rng.choice(PARTS)}ABCDEF0123")
    else:
        tail += rng.choice(QUERIES)
    return Address(f"{scheme}://{core}{tail}{rng.choice(OPTIONS)}", core, PARTS)


def password_of(rng: random.Random) -> str:
    """Words with what a URI has other uses for between them, and around them."""
    odd = (
        "@",
        "/",
        "?",
        "#",
        "[",
        "]",
        "%",
        ":",
        "&",
        "=",
        "+",
        "//",
        "://",
        "%40",
        "%zz",
        "ß",
        "!",
        "$",
        "'",
        '"',
        "\\",
    )
    between = ["".join(rng.choice(odd) for _ in range(rng.randint(1, 3))) for _ in range(4)]
    words = [*rng.sample(PARTS, rng.randint(1, 3)), ""]
    start = rng.choice(("", "", "554/", "1", "80?", between[3]))
    return start + "".join(word + odd for word, odd in zip(words, between, strict=False))


def damaged_address(rng: random.Random) -> Address:
    """An address that is damaged anywhere. What is secret must still not be seen where its surroundings are whole."""
    if rng.random() < 0.5:
        found = whole_address(rng)
        tail = found.text.partition(found.core)[2]
        return Address(damaged_text(rng, found.text), found.core, tuple(one for one in PARTS if one not in tail))
    return Address(damaged_text(rng, rng.choice(NETWORK)), "me:zebra7@", PARTS[:1])
