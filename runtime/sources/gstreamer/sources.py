"""From `gst:` and `csi://` to sources."""

from __future__ import annotations

import re

from vidseg.runtime.errors import UsageError
from vidseg.runtime.secret_uri import SecretUri
from vidseg.runtime.sources.capture import CameraOptions
from vidseg.runtime.sources.gstreamer.descriptions import csi_descriptions, own_description
from vidseg.runtime.sources.gstreamer.process import play
from vidseg.runtime.sources.gstreamer.redaction import secret_description
from vidseg.runtime.sources.streams.options import split_options, stream_options
from vidseg.runtime.sources.streams.source import StreamSource

GST_PREFIX = "gst:"

_OF_GST = "gst:videotestsrc is-live=true#stall_s=5&open_s=10"
_OF_CSI = "csi://0#size=1280x720&fps=30&rotate=180&stall_s=5&open_s=10"

_CSI_FORMS = {"size": r"[0-9]{1,5}x[0-9]{1,5}", "fps": r"[0-9]{1,4}", "rotate": r"[0-9]{1,3}"}


def gst_source(uri: str) -> StreamSource:
    """The pictures of a pipeline of GStreamer's that a person describes: `gst:v4l2src ! jpegdec`.

    Raises:
        UsageError: it is empty, has its own sink at its end, or a wish is not understood. The message repeats nothing
            that may be secret.
    """
    plain, values = split_options(uri, _OF_GST)
    address = secret_description(plain.removeprefix(GST_PREFIX).strip())
    last = address.uri.rpartition("!")[2].split()
    if last and re.fullmatch(r"[\w-]*sink\d?", last[0]) and not last[-1].endswith("."):
        raise UsageError(f"{address.name}: this description has its own sink", last[0], "Leave out its last element.")
    description = own_description(address.uri)
    return StreamSource(address, stream_options(values, _OF_GST), lambda address, _: play([description], address))


def csi_source(uri: str) -> StreamSource:
    """The pictures of a camera at the board's CSI connector: `csi://0#size=1280x720&fps=30&rotate=180`.

    Raises:
        UsageError: it is not understood, or out of range.
    """
    plain, values = split_options(uri, _OF_CSI)
    sensor = re.fullmatch(r"csi://([0-9]{1,2})/?", plain)
    understood = all(re.fullmatch(form, values[key]) for key, form in _CSI_FORMS.items() if key in values)
    if sensor is None or not understood:
        raise UsageError("a CSI camera's name is not understood", uri[:100], f"Write it as {_OF_CSI}.")
    width, _, height = values.get("size", "").partition("x")
    options = CameraOptions(
        size_wh=(int(width), int(height)) if width else None,
        fps=int(values["fps"]) if "fps" in values else None,
        rotate=int(values.get("rotate", "0")),
    )
    address = SecretUri("", f"csi://{int(sensor[1])}", ())
    descriptions = csi_descriptions(int(sensor[1]), options)
    return StreamSource(address, stream_options(values, _OF_CSI), lambda address, _: play(descriptions, address))
