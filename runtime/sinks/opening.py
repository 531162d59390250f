"""From a URI to a sink."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from vidseg.runtime.errors import SinkError, UsageError, VidsegError
from vidseg.runtime.manifest import ClassSpec
from vidseg.runtime.results.report import ReportOptions
from vidseg.runtime.sinks import Sink

KNOWN = (
    "window://, null://, FILE.mp4, FOLDER/ for PNG class maps, FILE.jsonl or jsonl://- for programs, "
    "web://127.0.0.1:8080, record://FOLDER, or rtsp://host/path to publish"
)


def sink_from_uri(uri: str, classes: Sequence[ClassSpec], report: ReportOptions | None = None) -> Sink:
    """The sink that a URI names. No file is made before its first result.

    Args:
        uri: `window://`, `null://`, the path of an MP4 file or of a folder, with a slash at its end, that of a file
            for JSON lines, with `#max_mib=1000&keep=3` behind it or not, `jsonl://-` for the standard output,
            `web://127.0.0.1:8080` for a page, `record://FOLDER` for segments, or `rtsp://host/path` to publish.
        classes: of the model, for names and colours.
        report: what sinks for programs tell.

    Raises:
        UsageError: no sink is named like that.
        SinkError: the file or folder cannot be made there.
        DeviceError: there is no display for a window.
        ConfigurationError: the report names what the model does not have.
    """
    try:
        return _sink(uri, classes, report)
    except VidsegError:
        raise
    except (OSError, ValueError) as error:  # a path that the system does not take
        raise SinkError("a sink cannot be made", os.strerror(getattr(error, "errno", 0) or errno.EINVAL)) from None


def _sink(uri: str, classes: Sequence[ClassSpec], report: ReportOptions | None) -> Sink:
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return _sink_of_path(uri, classes, report)
    makers: dict[str, Callable[[], Sink]] = {
        "web": lambda: _web(uri, classes),
        "record": lambda: _recording(uri, classes, report),
        "rtsp": lambda: _publishing(uri),
        "rtsps": lambda: _publishing(uri),
    }
    if not rest:
        makers |= {"null": _null, "window": _window}
    if rest == "-":
        makers["jsonl"] = lambda: _printed_lines(uri, classes, report)
    if scheme not in makers:
        kind = f"{scheme}:// sinks" if re.fullmatch(r"[A-Za-z]{1,8}", scheme) else "such sinks"
        raise UsageError(f"there are no {kind}", "", f"Use {KNOWN}.")  # the rest may hold a password
    return makers[scheme]()


def _sink_of_path(path: str, classes: Sequence[ClassSpec], report: ReportOptions | None) -> Sink:
    if re.search(r":.*@", path) and not Path(path).parent.is_dir():
        raise UsageError("an address is not understood", "", f"Use {KNOWN}.")  # nearly one, with a password
    if path.endswith("/") or (path and Path(path).is_dir()):
        from vidseg.runtime.sinks.masks import MasksSink

        return MasksSink(path, classes)
    if ".jsonl" in path.lower() and (lines := _lines_of_path(path, classes, report)):
        return lines
    if Path(path).suffix.lower() == ".mp4":
        from vidseg.runtime.sinks.video import VideoFileSink

        return VideoFileSink(path)
    shown = "" if "@" in path else path[:200] or "an empty name"
    raise UsageError("there is no such sink", shown, f"Use {KNOWN}.")


def _null() -> Sink:
    from vidseg.runtime.sinks.null import NullSink

    return NullSink()


def _window() -> Sink:
    from vidseg.runtime.sinks.window import WindowSink

    return WindowSink()


def _printed_lines(uri: str, classes: Sequence[ClassSpec], report: ReportOptions | None) -> Sink:
    from vidseg.runtime.sinks.jsonl import JsonLinesSink

    return JsonLinesSink(uri, classes, report)


def _lines_of_path(text: str, classes: Sequence[ClassSpec], report: ReportOptions | None) -> Sink | None:
    from vidseg.runtime.sinks.jsonl import JsonLinesSink, parse_lines_path

    parsed = parse_lines_path(text)
    return None if parsed is None else JsonLinesSink(parsed[0], classes, report, limits=parsed[1])


def _web(uri: str, classes: Sequence[ClassSpec]) -> Sink:
    from vidseg.runtime.sinks.web import WebSink

    return WebSink(uri, classes)


def _recording(uri: str, classes: Sequence[ClassSpec], report: ReportOptions | None) -> Sink:
    from vidseg.runtime.sinks.recording.options import parse_record_uri
    from vidseg.runtime.sinks.recording.sink import RecordingSink

    folder, options = parse_record_uri(uri)
    return RecordingSink(folder, classes, options, report=report)


def _publishing(uri: str) -> Sink:
    from vidseg.runtime.sinks.publish import PublishSink

    return PublishSink(uri)
