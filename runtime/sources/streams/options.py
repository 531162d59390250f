"""What stands behind the `#` of a live source: how it is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from vidseg.runtime.errors import UsageError

NVDEC = "nvdec"
"""The one decoder among `hardware` that is GStreamer's, for a Jetson."""

OF_STREAMS = f"#transport=tcp|udp&stall_s=5&open_s=10&hardware=cuda|vaapi|{NVDEC}"


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How a stream is read.

    Attributes:
        transport: of RTSP: `tcp` loses nothing, `udp` is for those that offer nothing else.
        stall_s: a stream that gives nothing for so long is lost.
        open_s: the first picture has to come within this, once its decoder is loaded.
        hardware: FFmpeg's name of a device that decodes, such as `cuda` or `vaapi`, where this build has it; `nvdec`
            for a Jetson's decoder, through GStreamer; "" for the processor.
    """

    transport: str = "tcp"
    stall_s: float = 5.0
    open_s: float = 10.0
    hardware: str = ""

    def __post_init__(self) -> None:
        if self.transport not in {"tcp", "udp"}:
            raise UsageError("a stream's transport is tcp or udp", self.transport)
        for name, value in (("stall_s", self.stall_s), ("open_s", self.open_s)):
            if not 0.1 <= value <= 600:
                raise UsageError(f"{name} is a number of seconds from 0.1 to 600", f"{value:g}")


def split_options(uri: str, known: str) -> tuple[str, dict[str, str]]:
    """The address, and what stands behind its last `#`, where that is for us: else it belongs to the address.

    Args:
        uri: of a source.
        known: the options that there are, in the form in which they are written.

    Raises:
        UsageError: an option that there is not. The message repeats nothing of the address.
    """
    plain, mark, text = uri.rpartition("#")
    if not mark or not re.fullmatch(r"(?:[a-z_]+=[a-z0-9.]*)(?:&[a-z_]+=[a-z0-9.]*)*", text):
        return uri, {}
    values = dict(pair.split("=", 1) for pair in text.split("&"))
    if not values.keys() <= set(re.findall(r"[#&]([a-z_]+)=", known)):
        raise UsageError("what stands behind the # of a source is not understood", "", f"Use {known}.")
    return plain, values


def stream_options(values: Mapping[str, str], known: str) -> StreamOptions:
    """What is known of `split_options` to every live source.

    Raises:
        UsageError: a value that is not understood or out of range.
    """
    try:
        return StreamOptions(
            transport=values.get("transport", "tcp"),
            stall_s=float(values.get("stall_s", "5")),
            open_s=float(values.get("open_s", "10")),
            hardware=values.get("hardware", ""),
        )
    except UsageError:
        raise
    except ValueError:
        text = "&".join(f"{key}={value}" for key, value in values.items())
        raise UsageError("a stream's option is not understood", text, f"Use {known}.") from None
