"""`JsonLinesSink`: a line of JSON for each result, to a file or to whoever reads our output."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from vidseg.runtime.errors import SinkError
from vidseg.runtime.frame import Image, Segmentation, SourceStatus
from vidseg.runtime.manifest import ClassSpec
from vidseg.runtime.results.report import Reporter, ReportOptions
from vidseg.runtime.sinks import Sink

STDOUT = "jsonl://-"


class JsonLinesSink(Sink):
    """Writes what `Reporter` finds, a line a result, and `{"source": .., "state": .., "since_ns": ..}` where a live
    source gives nothing. Each line is written at once and as a whole.

    Args:
        target: path of a file, which is replaced, or `jsonl://-` for the standard output.
        classes: of the model.
        options: what is told.

    Raises:
        SinkError: the file's folder is not there.
        ConfigurationError: see `Reporter`.
    """

    def __init__(self, target: str | Path, classes: Sequence[ClassSpec], options: ReportOptions | None = None) -> None:
        self._target = str(target)
        self._classes = classes
        self._options = options or ReportOptions()
        self._reporters: dict[str, Reporter] = {}
        self._stream: IO[str] | None = None
        Reporter(classes, self._options)  # says now what makes no sense
        if self._target != STDOUT and not Path(self._target).absolute().parent.is_dir():
            raise SinkError(f"{self._target}: there is no folder {Path(self._target).parent}", "", "Make it first.")

    @property
    def name(self) -> str:
        """The path, or `jsonl://-`."""
        return self._target

    @property
    def queue_size(self) -> int:
        """64: two seconds of a camera, for a disk or a reader that stalls."""
        return 64

    def write(self, segmentation: Segmentation, picture: Image | None) -> None:  # noqa: ARG002 - not wanted
        """Write a line.

        Raises:
            SinkError: the disk is full, or the reader is gone.
        """
        source = segmentation.frame.source
        if source not in self._reporters:
            self._reporters[source] = Reporter(self._classes, self._options)
        self._write_line(self._reporters[source].document(segmentation))

    def notify(self, status: SourceStatus) -> None:
        """Write a line of a source that gives nothing."""
        self._write_line({"source": status.source, "state": status.state, "since_ns": status.since_ns})

    def close(self) -> None:
        """Close the file. Idempotent."""
        stream, self._stream = self._stream, None
        if stream is not None and stream is not sys.stdout:
            stream.close()

    def _write_line(self, document: dict[str, object]) -> None:
        try:
            if self._stream is None:
                path = Path(self._target)
                self._stream = sys.stdout if self._target == STDOUT else path.open("w", encoding="utf-8")
            self._stream.write(json.dumps(document, separators=(",", ":")) + "\n")
            self._stream.flush()
        except (OSError, ValueError) as error:
            got = getattr(error, "strerror", None) or str(error)
            raise SinkError(f"{self._target}: a line cannot be written", got) from error
