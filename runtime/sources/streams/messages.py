"""What a process that decodes and the one that wants its pictures tell each other, a JSON document a packet."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

MAX_PACKET_BYTES = 1 << 15

Text = Annotated[str, msgspec.Meta(max_length=1000)]
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
Side = Annotated[int, msgspec.Meta(ge=1, le=16384)]


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The first packet, to the decoder: what to open.

    Attributes:
        uri: with credentials; nothing else of the process shows them.
        options: of the library that opens it.
        timeout_s: for each wait of the library itself.
        hardware: FFmpeg's name of a decoder's device, such as `cuda` or `vaapi`; "" for the processor.
    """

    uri: str
    options: dict[str, str] = {}
    timeout_s: float = 10.0
    hardware: str = ""


class LaunchRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The first packet, to a GStreamer process.

    Attributes:
        descriptions: of pipelines, as `gst-launch-1.0` takes them, with credentials. The first one whose elements are
            all there is opened. Each ends with the sink of `descriptions.PICTURES`.
    """

    descriptions: list[str]


class Ready(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="ready"):
    """The first message: the process has loaded what it needs, and opens the stream now."""


class Buffers(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="buffers"):
    """Pictures lie from now on in the memory whose descriptor comes with this packet; those before are void."""

    width: Side
    height: Side
    count: Annotated[int, msgspec.Meta(ge=1, le=8)]


class Picture(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="picture"):
    """A picture lies in a place of the memory, and stays there until that place is given back.

    Attributes:
        place: its number, from 0.
        index: of the picture; where one is missing, a picture was left out.
        decoded_ns: on the monotonic clock, which all processes of a machine share.
        stamp_ns: since the start of the stream; None where it does not say.
    """

    place: Annotated[int, msgspec.Meta(ge=0, le=7)]
    index: Count
    decoded_ns: Count
    stamp_ns: Annotated[int, msgspec.Meta(ge=-(1 << 62), le=1 << 62)] | None


class BadPicture(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="bad"):
    """A picture was damaged."""

    index: Count
    text: Text


class Ended(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="ended"):
    """No more pictures come.

    Attributes:
        why: the stream is over or gone, or it was refused: what another try in a second will not mend.
        text: the reason, which may hold parts of the address.
        do: a sentence that says how to mend it, or "".
    """

    why: Literal["lost", "refused"]
    text: Text
    do: Text = ""


Message: TypeAlias = Ready | Buffers | Picture | BadPicture | Ended
