"""Offers of WebRTC (SDP, RFC 8866) as browsers make them, and damage to their structure."""

from __future__ import annotations

import random

from tests.fuzz.mutation import damaged_bytes, damaged_text

SESSION = (
    "v=0", "o=- 4004294659 4004294659 IN IP4 0.0.0.0", "s=-", "t=0 0", "a=group:BUNDLE 0", "a=msid-semantic:WMS *",
)  # fmt: skip

VIDEO = (
    "m=video 45924 UDP/TLS/RTP/SAVPF 97 98 99 100 101 102", "c=IN IP4 192.0.2.2", "a=recvonly",
    "a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid",
    "a=extmap:3 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time", "a=mid:0",
    "a=msid:54533317-319e-4efc-b6a7-2e7d83227a6e 5929c72b-b339-43ee-b42c-995dde967f88", "a=rtcp:9 IN IP4 0.0.0.0",
    "a=rtcp-mux", "a=ssrc-group:FID 1428674562 1051293217",
    "a=ssrc:1428674562 cname:495f79d2-33b8-41e4-abfd-71e9128e0c53",
    "a=ssrc:1051293217 cname:495f79d2-33b8-41e4-abfd-71e9128e0c53",
    "a=rtpmap:97 VP8/90000", "a=rtcp-fb:97 nack pli", "a=rtpmap:98 rtx/90000", "a=fmtp:98 apt=97",
    "a=rtpmap:99 H264/90000", "a=rtcp-fb:99 nack", "a=rtcp-fb:99 goog-remb",
    "a=fmtp:99 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f", "a=rtpmap:100 rtx/90000",
    "a=fmtp:100 apt=99", "a=rtpmap:101 H264/90000", "a=rtcp-fb:101 nack",
    "a=fmtp:101 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f", "a=rtpmap:102 rtx/90000",
    "a=fmtp:102 apt=101",
    "a=candidate:f957a2332b1715da3b0ef8ba684454eb 1 udp 2130706431 192.0.2.2 45924 typ host", "a=end-of-candidates",
    "a=ice-ufrag:SYXI", "a=ice-pwd:uqTEWhUE1WaSgdXRjUUHxR",
    ("a=fingerprint:sha-256 E9:C0:1E:63:D6:7E:4B:6F:5D:DA:77:33:D4:39:E2:27:EC:60:BA:4B:C7:12:18:3F:EF:81:53:12:BD:3C:"
    "28:4A"), "a=setup:actpass",
)  # fmt: skip

ODD_LINES = (
    "m=audio 9 UDP/TLS/RTP/SAVPF 111", "m=video 9 UDP/TLS/RTP/SAVPF 99",
    "m=application 9 UDP/DTLS/SCTP webrtc-datachannel", "m=video 0 UDP/TLS/RTP/SAVPF 99", "m=video 9 RTP/AVP 99",
    "m=video 9 UDP/TLS/RTP/SAVPF", "m=video", "m=", "m=video 9/2 x 1", "m=video 99999999999 UDP/TLS/RTP/SAVPF 9999",
    "a=sctp-port:5000", "a=max-message-size:0", "a=sctpmap:5000 x 1", "a=group:BUNDLE", "a=group:BUNDLE 0 1 2 0",
    "a=group:LS 0", "a=group:", "a=mid:", "a=mid:1", "a=mid:__proto__", "a=sendrecv", "a=sendonly", "a=inactive",
    "a=setup:active", "a=setup:passive", "a=setup:holdconn", "a=setup:", "a=ice-lite", "a=ice-options:trickle ice2",
    "a=ice-ufrag:", "a=ice-ufrag:x", "a=ice-pwd:", "a=ice-pwd:x", "a=fingerprint:", "a=fingerprint:sha-256",
    "a=fingerprint:md5 00", "a=fingerprint:sha-256 ZZ", "a=fingerprint:x 00:00",
    "a=candidate:1 1 tcp 1 127.0.0.1 9 typ host tcptype active", "a=candidate:1 1 udp 1 evil.example 53 typ host",
    "a=candidate:", "a=candidate:1 1 udp x ::1 x typ", "a=remote-candidates:1 127.0.0.1 80", "a=rtcp:x", "a=rtcp:9",
    "a=rtcp:-1 IN IP6 ::", "a=rtcp-rsize", "a=rtpmap:99", "a=rtpmap:99 H264", "a=rtpmap:99 H264/0",
    "a=rtpmap:x H264/90000", "a=rtpmap:99 H264/90000/99", "a=rtpmap:-1 H264/90000", "a=rtpmap:300 H265/90000",
    "a=rtpmap:99 AV1/1e9", "a=fmtp:99", "a=fmtp:7 apt=7", "a=fmtp:100 apt=x", "a=fmtp:100 apt=100",
    "a=fmtp:99 profile-level-id=zz", "a=fmtp:99 packetization-mode=9;;=;x", "a=fmtp:99 profile-level-id=ffffffffffff",
    "a=rtcp-fb:* nack", "a=rtcp-fb:99", "a=extmap:0 x", "a=extmap:1",
    "a=extmap:99999 urn:ietf:params:rtp-hdrext:sdes:mid", "a=extmap:x y", "a=extmap:2/recvonly urn:x", "a=ssrc:",
    "a=ssrc:1", "a=ssrc:99999999999999 cname:x", "a=ssrc:1 msid:a b", "a=ssrc-group:FID", "a=ssrc-group:SIM 1 2 3",
    "a=rid:h send", "a=simulcast:recv h;m;l", "a=msid:", "a=msid:- -", "a=msid-semantic:", "a=msid-semantic: WMS",
    "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x", "a=bundle-only", "a=", "a", "=", "c=", "c=IN IP6 ::1", "c=IN IP4",
    "o=", "o=- x", "s=", "t=", "t=x y", "b=AS:0", "b=AS:-1", "v=0", "v=1", "v=x", "z=0", "k=clear:x", "i=x", "", " ",
    "a=rtcp-mux", "a=rtcp-mux-only", "a=tls-id:1", "a=identity:x",
)  # fmt: skip


def offer() -> str:
    """One that is answered."""
    return "\r\n".join([*SESSION, *VIDEO, ""])


def hostile_offer(rng: random.Random) -> bytes:
    """An offer with lines that are missing, repeated, elsewhere, odd ones or damaged, or with damaged bytes."""
    lines = [*SESSION, *VIDEO]
    for _ in range(1 + min(int(rng.expovariate(0.6)), 10)):
        _damage(rng, lines)
    end = rng.choice(("\r\n",) * 8 + ("\n", "\r", "\u2028"))
    content = end.join([*lines, ""]).encode("utf-8", "surrogatepass")
    return damaged_bytes(rng, content) if rng.random() < 0.15 else content


def _damage(rng: random.Random, lines: list[str]) -> None:
    place = rng.randrange(len(lines))
    kind = rng.randrange(8)
    if kind == 0 and len(lines) > 1:
        del lines[place]
    elif kind == 1:
        lines.insert(rng.randint(0, len(lines)), rng.choice(ODD_LINES))
    elif kind == 2:
        _replace_alike(rng, lines)
    elif kind == 3:
        lines[place] = damaged_text(rng, lines[place])
    elif kind == 4:
        words = lines[place].split(" ")
        rng.shuffle(words)
        lines[place] = " ".join(words[: rng.randint(1, len(words))])
    elif kind == 5:
        lines.insert(rng.randint(0, len(lines)), lines[place])
    elif kind == 6:
        lines.insert(rng.randrange(len(lines)), lines.pop(place))
    else:
        lines[place:place] = rng.choice((VIDEO, lines[place : place + 5] * 20, ["a=x:" + "y" * 3000]))


def _replace_alike(rng: random.Random, lines: list[str]) -> None:
    """An odd line in the place of one of the same attribute."""
    odd = rng.choice(ODD_LINES)
    alike = [place for place, line in enumerate(lines) if line.partition(":")[0] == odd.partition(":")[0]]
    lines[rng.choice(alike or range(len(lines)))] = odd
