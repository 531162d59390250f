"""From a URI to a sink."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from vidseg.runtime.errors import UsageError
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
            for JSON lines, `jsonl://-` for the standard output, `web://127.0.0.1:8080` for a page,
            `record://FOLDER` for segments, or `rtsp://host/path` to publish.
        classes: of the model, for names and colours.
        report: what sinks for programs tell.

    Raises:
        UsageError: no sink is named like that.
        SinkError: the file or folder cannot be made there.
        DeviceError: there is no display for a window.
        ConfigurationError: the report names what the model does not have.
    """
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
        makers["jsonl"] = lambda: _json_lines(uri, classes, report)
    if scheme not in makers:
        raise UsageError(f"there are no {scheme}:// sinks", "", f"Use {KNOWN}.")  # the rest may hold a password
    return makers[scheme]()


def _sink_of_path(path: str, classes: Sequence[ClassSpec], report: ReportOptions | None) -> Sink:
    if path.endswith("/") or (path and Path(path).is_dir()):
        from vidseg.runtime.sinks.masks import MasksSink

        return MasksSink(path, classes)
    suffix = Path(path).suffix.lower()
    if suffix == ".jsonl":
        return _json_lines(path, classes, report)
    if suffix == ".mp4":
        from vidseg.runtime.sinks.video import VideoFileSink

        return VideoFileSink(path)
    raise UsageError("there is no such sink", path or "an empty name", f"Use {KNOWN}.")


def _null() -> Sink:
    from vidseg.runtime.sinks.null import NullSink

    return NullSink()


def _window() -> Sink:
    from vidseg.runtime.sinks.window import WindowSink

    return WindowSink()


def _json_lines(target: str, classes: Sequence[ClassSpec], report: ReportOptions | None) -> Sink:
    from vidseg.runtime.sinks.jsonl import JsonLinesSink

    return JsonLinesSink(target, classes, report)


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
