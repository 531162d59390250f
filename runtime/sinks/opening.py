"""From a URI to a sink."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vidseg.runtime.errors import UsageError
from vidseg.runtime.manifest import ClassSpec
from vidseg.runtime.results.report import ReportOptions
from vidseg.runtime.sinks import Sink

KNOWN = "window://, null://, FILE.mp4, FOLDER/ for PNG class maps, FILE.jsonl or jsonl://- for programs, web://127.0.0.1:8080"


def sink_from_uri(uri: str, classes: Sequence[ClassSpec], report: ReportOptions | None = None) -> Sink:
    """The sink that a URI names. No file is made before its first result.

    Args:
        uri: `window://`, `null://`, the path of an MP4 file or of a folder, with a slash at its end, that of a file
            for JSON lines, `jsonl://-` for the standard output, or `web://127.0.0.1:8080` for a page.
        classes: of the model, for names and colours.
        report: what sinks for programs tell.

    Raises:
        UsageError: no sink is named like that.
        SinkError: the file or folder cannot be made there.
        DeviceError: there is no display for a window.
        ConfigurationError: the report names what the model does not have.
    """
    if uri == "null://":
        from vidseg.runtime.sinks.null import NullSink

        return NullSink()
    if uri == "window://":
        from vidseg.runtime.sinks.window import WindowSink

        return WindowSink()
    if uri == "jsonl://-" or ("://" not in uri and Path(uri).suffix.lower() == ".jsonl"):
        from vidseg.runtime.sinks.jsonl import JsonLinesSink

        return JsonLinesSink(uri, classes, report)
    if uri.startswith("web://"):
        from vidseg.runtime.sinks.web import WebSink

        return WebSink(uri, classes)
    scheme, separator, _ = uri.partition("://")
    if separator:
        raise UsageError(f"there are no {scheme}:// sinks", "", f"Use {KNOWN}.")  # the rest may hold a password
    if uri.endswith("/") or (uri and Path(uri).is_dir()):
        from vidseg.runtime.sinks.masks import MasksSink

        return MasksSink(uri, classes)
    if Path(uri).suffix.lower() == ".mp4":
        from vidseg.runtime.sinks.video import VideoFileSink

        return VideoFileSink(uri)
    raise UsageError("there is no such sink", uri or "an empty name", f"Use {KNOWN}.")
