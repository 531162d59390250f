"""Plays a pipeline in a process of its own, and gives its pictures away.

Nothing but Python's own library and PyGObject, and no syntax newer than Python 3.8: the system's Python runs this.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from functools import partial
from typing import Any, NamedTuple

from vidseg.runtime.sources.gstreamer.descriptions import PICTURES
from vidseg.runtime.sources.streams.outlet import Outlet

PACKAGES = "python3-gi gir1.2-gstreamer-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good"
"""Of Debian and Ubuntu."""

END_S = 1
"""How long elements may take to let go of their devices before the process ends without that."""

NO_ELEMENT_DO = "Install the GStreamer plugin that has it, or correct its name."
NO_LINK_DO = "A description ends before its sink, with raw video."
NO_DECODER_DO = "Take another decoder."


class Answer(NamedTuple):
    """Why there are no pictures, or no more of them.

    Attributes:
        why, text, do: see `messages.Ended`.
        may_fit: another description may do better.
    """

    why: str
    text: str
    do: str = ""
    may_fit: bool = False


def serve(descriptor: int) -> None:
    """Play what the first packet of a socket asks for until it ends, or until the socket does; then end the process."""
    player = Player()
    outlet = Outlet(descriptor, player.stop)
    descriptions = json.loads(outlet.request())["descriptions"]
    try:
        gst = _gstreamer()
        outlet.ready()
    except (ImportError, ValueError) as error:
        answer = Answer("refused", f"{error}, by {sys.executable}", f"Try: sudo apt install {PACKAGES}.")
    else:
        answer = player.play(gst, descriptions, outlet)
    outlet.ended(answer.why, answer.text, answer.do)
    player.stop()
    os._exit(0)  # GStreamer's threads may be in the middle of a call


class Player:
    """One pipeline at a time."""

    def __init__(self) -> None:
        self._gst: Any = None
        self._pipeline: Any = None
        self._failure = ""
        self._index = 0
        self._start_ns: int | None = None

    def play(self, gst: Any, descriptions: list[str], outlet: Outlet) -> Answer:
        """Give every picture of the first pipeline that fits to the outlet; returns why there are no more.

        Args:
            gst: GStreamer's bindings.
            descriptions: of pipelines, each with a sink named `PICTURES`.
            outlet: takes the pictures.
        """
        self._gst = gst
        answers = []
        for description in descriptions:
            answer = self._played(description, outlet, is_only=len(descriptions) == 1)
            if not answer.may_fit:
                return answer
            answers.append(answer)
        return Answer("refused", ", ".join(answer.text for answer in answers), answers[-1].do)

    def _played(self, description: str, outlet: Outlet, *, is_only: bool) -> Answer:
        gst = self._gst
        try:
            pipeline = gst.parse_launch(description)
        except Exception as error:  # noqa: BLE001 - GLib.Error, which only the bindings can name
            return _of_parsing(gst, error)
        self._pipeline = pipeline
        pipeline.get_by_name(PICTURES).connect("new-sample", self._on_sample, outlet)
        started = pipeline.set_state(gst.State.PLAYING) != gst.StateChangeReturn.FAILURE
        kinds = gst.MessageType.ERROR | gst.MessageType.EOS
        if not is_only:
            kinds |= gst.MessageType.WARNING
        answer = None
        while answer is None:
            wait_ns = gst.CLOCK_TIME_NONE if started else gst.SECOND
            answer = self._answer(pipeline.get_bus().timed_pop_filtered(wait_ns, kinds))
        if answer.may_fit:
            pipeline.set_state(gst.State.NULL)
        return answer

    def _answer(self, message: Any) -> Answer | None:
        """What a message of the pipeline's bus means; None for nothing."""
        gst = self._gst
        if self._failure:
            return Answer("lost", self._failure)
        if message is None:
            return Answer("lost", "it cannot be started")
        if message.type == gst.MessageType.EOS:
            return Answer("lost", "the stream has ended")
        is_warning = message.type == gst.MessageType.WARNING
        error, debug = message.parse_warning() if is_warning else message.parse_error()
        said = (debug or "").split("\n")[-1].strip()  # what is above names a line of GStreamer's source
        text = f"{message.src.get_name()}: {error.message}" + (f" {said}" if said not in error.message else "")
        if is_warning:
            is_other = error.matches(gst.ParseError.quark(), gst.ParseError.DELAYED_LINK)
            return Answer("refused", text, NO_DECODER_DO, may_fit=True) if is_other else None
        return Answer("refused" if _is_refusal(gst, error) else "lost", text)

    def stop(self) -> None:
        """Let go of all devices: some are not to be had again for a while where a process just ends."""
        signal.alarm(END_S)
        if self._pipeline is not None:
            self._pipeline.set_state(self._gst.State.NULL)

    def _on_sample(self, sink: Any, outlet: Outlet) -> Any:
        """In a thread of GStreamer's. Each picture comes here, so those that are left out are missing in the count."""
        decoded_ns, gst = time.monotonic_ns(), self._gst
        sample = sink.emit("pull-sample")
        if sample is None:
            return gst.FlowReturn.EOS
        index = self._index
        self._index += 1
        buffer = sample.get_buffer()
        stamp_ns = self._stamp_ns(buffer.pts, gst.CLOCK_TIME_NONE)
        try:
            size_wh = size_of(sample.get_caps().to_string())
            data = buffer.extract_dup(0, buffer.get_size())
            if len(data) < row_bytes(size_wh[0]) * (size_wh[1] - 1) + 3 * size_wh[0]:
                outlet.bad(index, "is incomplete")
            else:
                outlet.show(size_wh, partial(copy_rows, data, size_wh), index, (decoded_ns, stamp_ns))
        except (OSError, ValueError) as error:
            self._failure = str(error)
            return gst.FlowReturn.ERROR
        return gst.FlowReturn.OK

    def _stamp_ns(self, pts: int, none: int) -> int | None:
        if pts == none:
            return None
        if self._start_ns is None:
            self._start_ns = pts
        return pts - self._start_ns


def size_of(caps: str) -> tuple[int, int]:
    """Width and height in pixels of pictures with such capabilities.

    Raises:
        ValueError: they have none.
    """
    sides = [re.search(rf"\b{side}=(?:\(int\))?([0-9]+)\b", caps) for side in ("width", "height")]
    if sides[0] is None or sides[1] is None:
        raise ValueError(f"pictures without a size: {caps}")
    return int(sides[0][1]), int(sides[1][1])


def row_bytes(width: int) -> int:
    """From one row of BGR to the next: up to a multiple of four (GstVideoInfo, `fill_planes`)."""
    return (3 * width + 3) // 4 * 4


def copy_rows(data: bytes, size_wh: tuple[int, int], target: memoryview) -> None:
    """A picture without what GStreamer puts behind each row."""
    width, height = size_wh
    row, step = 3 * width, row_bytes(width)
    if row == step:
        target[:] = memoryview(data)[: row * height]
        return
    source = memoryview(data)
    for number in range(height):
        target[number * row : (number + 1) * row] = source[number * step : number * step + row]


def _gstreamer() -> Any:
    """The bindings, ready for use."""
    import gi

    gi.require_version("Gst", "1.0")
    from gi.repository import Gst

    Gst.init(None)
    return Gst


def _of_parsing(gst: Any, error: Any) -> Answer:
    """What is wrong with a description."""
    if error.matches(gst.ParseError.quark(), gst.ParseError.NO_SUCH_ELEMENT):
        return Answer("refused", error.message, NO_ELEMENT_DO, may_fit=True)
    is_link = error.matches(gst.ParseError.quark(), gst.ParseError.LINK)
    return Answer("refused", error.message, NO_LINK_DO if is_link else "")


def _is_refusal(gst: Any, error: Any) -> bool:
    """True for what another try in a second will not mend: nothing there, a wrong password, no decoder for it."""
    kinds = (
        (gst.ResourceError, ("NOT_FOUND", "NOT_AUTHORIZED")),
        (gst.StreamError, ("TYPE_NOT_FOUND", "WRONG_TYPE", "CODEC_NOT_FOUND")),
        (gst.CoreError, ("MISSING_PLUGIN", "NEGOTIATION")),
    )
    return any(error.matches(kind.quark(), getattr(kind, name)) for kind, names in kinds for name in names)
