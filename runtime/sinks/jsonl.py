"""`JsonLinesSink`: a line of JSON for each result, to a file or to whoever reads our output."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

from vidseg.runtime.clock import Clock, SystemClock
from vidseg.runtime.errors import SinkError, UsageError
from vidseg.runtime.frame import Image, Segmentation, SourceStatus
from vidseg.runtime.manifest import ClassSpec
from vidseg.runtime.results.report import Reporter, ReportOptions
from vidseg.runtime.sinks import Sink
from vidseg.runtime.sinks.disk import RETRY_S, is_full, reason_of
from vidseg.runtime.sinks.line_file import LineFile
from vidseg.runtime.sinks.wall_time import iso_text, wall_ns_of

log = logging.getLogger(__name__)

STDOUT = "jsonl://-"

SUFFIX = ".jsonl"

FORM = "FILE.jsonl#max_mib=1000&keep=3"


@dataclass(frozen=True, slots=True)
class LineLimits:
    """How much is kept.

    Attributes:
        max_mib: a file that would grow larger becomes an old one, in MiB.
        keep: how many old ones there are; what is older is deleted.

    Raises:
        UsageError: a value is out of its range.
    """

    max_mib: float = 1000.0
    keep: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.max_mib <= 1e9:
            raise UsageError("max_mib of JSON lines is out of range", f"{self.max_mib:g}", "Use 1 to 1e9.")
        if not 0 <= self.keep <= 1000:
            raise UsageError("keep of JSON lines is out of range", str(self.keep)[:40], "Use 0 to 1000.")


@dataclass(frozen=True, slots=True)
class JsonLinesStatistics:
    """A file of lines at one instant.

    Attributes:
        written: lines that are in a file, or were printed.
        missing: lines that the disk did not take.
        trouble: why nothing is written now; "" where all is well.
    """

    written: int = 0
    missing: int = 0
    trouble: str = ""


class JsonLinesSink(Sink):
    """Writes a line of what `Reporter` finds, with the time of day, and one where a live source gives nothing.

    Each is written at once and as a whole, behind those of earlier runs; docs/json-lines.md has the fields. A disk that
    is full, or fails later, is told once and tried again every 30 s; the lines that are missing are counted.

    Args:
        target: path of a file, or `jsonl://-` for the standard output.
        classes: of the model.
        options: what is told.
        limits: how much is kept; not for the standard output.
        clock: for a test.

    Raises:
        SinkError: the file's folder is not there, or it is something else than a file.
        ConfigurationError: see `Reporter`.
    """

    def __init__(
        self,
        target: str | Path,
        classes: Sequence[ClassSpec],
        options: ReportOptions | None = None,
        *,
        limits: LineLimits | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._target = str(target)
        self._classes = classes
        self._options = options or ReportOptions()
        self._clock = clock or SystemClock()
        self._reporters: dict[str, Reporter] = {}
        self._retry_ns = 0
        self._told_missing = 0
        self._statistics = JsonLinesStatistics()
        Reporter(classes, self._options)  # says now what makes no sense
        self._file: LineFile | None = None
        if self._target != STDOUT:
            self._file = _line_file(self._target, limits or LineLimits())

    @property
    def name(self) -> str:
        """The path, or `jsonl://-`."""
        return self._target

    @property
    def queue_size(self) -> int:
        """64: two seconds of a camera, for a disk or a reader that stalls."""
        return 64

    def statistics(self) -> JsonLinesStatistics:
        """The lines until now. May be called from any thread."""
        return self._statistics

    def write(self, segmentation: Segmentation, picture: Image | None) -> None:  # noqa: ARG002 - not wanted
        """Write a line.

        Raises:
            SinkError: the file cannot be made or written from the start, or the reader of the output is gone.
        """
        source = segmentation.frame.source
        if source not in self._reporters:
            self._reporters[source] = Reporter(self._classes, self._options)
        time = iso_text(wall_ns_of(self._clock, segmentation.frame.captured_ns))
        self._write_line({"time": time} | self._reporters[source].document(segmentation))

    def notify(self, status: SourceStatus) -> None:
        """Write a line of a source that gives nothing; forget one that was removed.

        Raises: as `write`.
        """
        if status.state == "removed":
            self._reporters.pop(status.source, None)
        time = iso_text(self._clock.wall_ns())
        self._write_line({"time": time, "source": status.source, "state": status.state, "since_ns": status.since_ns})

    def close(self) -> None:
        """Say what is missing, where that goes on. Idempotent."""
        seen = self._statistics
        if seen.trouble:
            log.error("%s: %d lines are missing", self.name, seen.missing - self._told_missing)
            self._statistics = JsonLinesStatistics(seen.written, seen.missing)

    def _write_line(self, document: dict[str, object]) -> None:
        seen = self._statistics
        if seen.trouble and self._clock.now_ns() < self._retry_ns:
            self._statistics = JsonLinesStatistics(seen.written, seen.missing + 1, seen.trouble)
            return
        try:
            if self._file is None:
                print(json.dumps(document, separators=(",", ":")), flush=True)  # noqa: T201 - what was asked for
            else:
                self._file.append(document)
        except (OSError, ValueError) as error:
            self._fail(error)
            return
        if seen.trouble:
            log.warning("%s: lines are written again; %d are missing", self.name, seen.missing - self._told_missing)
            self._told_missing = seen.missing
        self._statistics = JsonLinesStatistics(seen.written + 1, seen.missing)

    def _fail(self, error: Exception) -> None:
        """A disk that is full, or was well, may be well again; nothing else is."""
        seen, reason = self._statistics, reason_of(error)
        if self._file is None or not (seen.written or is_full(error)):
            raise SinkError(f"{self._target}: a line cannot be written", reason) from error
        self._retry_ns = self._clock.now_ns() + round(RETRY_S * 1e9)
        self._statistics = JsonLinesStatistics(seen.written, seen.missing + 1, reason)
        if not seen.trouble:
            log.error(
                "%s: no lines are written: %s. Everything else goes on; it is tried again every %g s.",
                self.name, reason, RETRY_S,
            )  # fmt: skip


def parse_lines_path(text: str) -> tuple[str, LineLimits] | None:
    """Path and limits of a text such as `out.jsonl#max_mib=100&keep=2`; None where it names no file of lines.

    A `#` in the file's own name is no mark of options: what ends in `.jsonl` is a name as a whole.

    Raises:
        UsageError: the options are not understood.
    """
    if Path(text).suffix.lower() == SUFFIX:
        return text, LineLimits()
    path, mark, options = text.rpartition("#")
    if not mark or Path(path).suffix.lower() != SUFFIX:
        return None
    try:
        values = dict(parse_qsl(options, keep_blank_values=True, strict_parsing=True))
        if len(values) != options.count("&") + 1 or not values.keys() <= {"max_mib", "keep"}:
            raise ValueError(options)
        limits = {"max_mib": float(values.get("max_mib", LineLimits().max_mib))}
        return path, LineLimits(**limits, keep=int(values.get("keep", LineLimits().keep)))
    except UsageError:
        raise
    except ValueError:  # what stands there may be a password
        raise UsageError("the options of a file of JSON lines are not understood", "", f"Use {FORM}.") from None


def _line_file(target: str, limits: LineLimits) -> LineFile:
    path = Path(target)
    if not path.absolute().parent.is_dir():
        raise SinkError(f"{target}: there is no folder {path.parent}", "", "Make it first.")
    if path.exists() and not path.is_file():
        raise SinkError(f"{target} is no plain file", "", f"Use {STDOUT} for a pipe.")
    real = Path(os.path.realpath(path))  # old ones lie beside the file, not beside a link to it
    return LineFile(real, round(limits.max_mib * 2**20), limits.keep)
