"""`RecordingSink`: every source in segments of its own, for as long as the disk has room."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from vidseg.runtime.clock import Clock, SystemClock
from vidseg.runtime.errors import SinkError, UsageError
from vidseg.runtime.frame import Image, Segmentation, SourceStatus
from vidseg.runtime.manifest import ClassSpec
from vidseg.runtime.results.report import Reporter, ReportOptions
from vidseg.runtime.sinks import Sink
from vidseg.runtime.sinks.disk import RETRY_S, is_full, reason_of
from vidseg.runtime.sinks.recording.archive import Archive
from vidseg.runtime.sinks.recording.options import SCHEME, RecordingOptions
from vidseg.runtime.sinks.recording.track import Track

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RecordingStatistics:
    """A recording at one instant, of all sources together, those that were removed included.

    Attributes:
        recorded: frames that are on the disk and play.
        not_recorded: frames that were to be recorded, and are not: the disk said no.
        size_bytes: of all segments, those of earlier runs included.
        trouble: why nothing is recorded now; "" where all is well.
    """

    recorded: int = 0
    not_recorded: int = 0
    size_bytes: int = 0
    trouble: str = ""


class RecordingSink(Sink):
    """Records each source in a folder of its own, as MP4 files that play even when the process is killed.

    A folder that cannot be made or written at the first result is an error. A disk that is full, or fails later, stops
    the recording with one message; it is tried again every 30 s, and what was not recorded is counted. Other sinks and
    the inference go on.

    Args:
        folder: made at the first result where it is missing; the folder that it lies in has to be there.
        classes: of the model.
        options: see `RecordingOptions`.
        report: zones, and rules for events.
        clock: for a test.

    Raises:
        SinkError: the folder's place is not there, or is no folder.
        UsageError: no rule has the name of an event.
        ConfigurationError: see `Reporter`.
    """

    def __init__(
        self,
        folder: str | Path,
        classes: Sequence[ClassSpec],
        options: RecordingOptions | None = None,
        *,
        report: ReportOptions | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._folder = Path(folder)
        self._classes = classes
        self._options = options or RecordingOptions()
        self._report = _report_of(self._options, report or ReportOptions())
        self._clock = clock or SystemClock()
        self._archive = Archive(
            self._folder, self._options.quota_bytes, min_free_bytes=round(self._options.min_free_mib * 2**20)
        )
        self._tracks: dict[str, Track] = {}
        self._is_open = False
        self._trouble = ""
        self._retry_ns = 0
        self._recorded_before = self._missed_before = 0
        self._recorded_removed = self._missed_removed = 0
        self._statistics = RecordingStatistics()
        Reporter(classes, self._report)  # says now what makes no sense
        place = self._folder if self._folder.exists() else self._folder.absolute().parent
        if not place.is_dir():
            raise SinkError(f"{self.name}: there is no folder {place}", "", "Make it first.")

    @property
    def name(self) -> str:
        """`record://` and the folder."""
        return f"{SCHEME}{self._folder}"

    @property
    def wants_picture(self) -> bool:
        """True unless frames are recorded as they were captured."""
        return self._options.picture == "overlay"

    @property
    def queue_size(self) -> int:
        """64: two seconds of a camera, for a disk that stalls."""
        return 64

    def statistics(self) -> RecordingStatistics:
        """The recording now. May be called from any thread."""
        return self._statistics

    def write(self, segmentation: Segmentation, picture: Image | None) -> None:
        """Record one result, or keep it in memory for an event that may come.

        Raises:
            SinkError: the folder cannot be made or written, another run records there, or PyAV has no encoder.
        """
        track = self._track_of(segmentation.frame.source)
        track.hear(segmentation)
        if not self._trouble or self._clock.now_ns() >= self._retry_ns:
            shown = segmentation.frame.image if picture is None or not self.wants_picture else picture
            with self._guarded():
                self._open()
                track.record(segmentation.frame, shown)
        self._take_stock(is_idle=not track.is_wanted)

    def notify(self, status: SourceStatus) -> None:
        """End the segment of a source that is lost, or gives nothing for longer than a segment lasts.

        Of one that was removed nothing is left but its files and its counts.
        """
        if status.state == "removed":
            self._remove(status.source)
            return
        silent_s = (self._clock.now_ns() - status.since_ns) / 1e9
        track = self._tracks.get(status.source)
        if track is not None and (status.state in {"lost", "refused"} or silent_s > self._options.segment_s):
            with self._guarded():
                track.interrupt()
            self._take_stock()

    def close(self) -> None:
        """Finish the files. Idempotent."""
        for track in self._tracks.values():
            with self._guarded():
                track.stop()
        self._take_stock()
        self._archive.close()
        if self._trouble:
            log.error("%s: %d frames were not recorded", self.name, self._statistics.not_recorded)
            self._trouble = ""

    def _track_of(self, source: str) -> Track:
        if source not in self._tracks:
            reporter = Reporter(self._classes, self._report)
            self._tracks[source] = Track(source, self._archive, self._options, reporter=reporter, clock=self._clock)
        return self._tracks[source]

    def _remove(self, source: str) -> None:
        track = self._tracks.get(source)
        if track is None:
            return
        with self._guarded():
            track.stop()
        self._recorded_removed += track.recorded
        self._missed_removed += track.missed
        del self._tracks[source]
        self._take_stock()

    def _open(self) -> None:
        if self._is_open:
            return
        try:
            self._archive.open()
        except SinkError:
            raise
        except OSError as error:
            if self._archive.was_open or is_full(error):
                raise
            raise SinkError(
                f"{self.name}: nothing can be recorded there", reason_of(error), "Name another folder."
            ) from error
        self._is_open = True

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """What the disk or the encoder say stops the recording, and nothing else."""
        from av import FFmpegError

        try:
            yield
        except SinkError:
            raise
        except (OSError, FFmpegError) as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """End what is being written as far as that works; look at the disk afresh at the next try."""
        from av import FFmpegError

        for track in self._tracks.values():
            with suppress(OSError, FFmpegError):
                track.interrupt()
        self._archive.stop(error)
        self._is_open = False
        self._retry_ns = self._clock.now_ns() + round(RETRY_S * 1e9)
        self._recorded_before = self._recorded
        if not self._trouble:
            self._trouble = reason_of(error)
            log.error(
                "%s: the recording stops: %s. Everything else goes on; it is tried again every %g s.",
                self.name, self._trouble, RETRY_S,
            )  # fmt: skip

    @property
    def _recorded(self) -> int:
        return self._recorded_removed + sum(track.recorded for track in self._tracks.values())

    def _take_stock(self, *, is_idle: bool = False) -> None:
        recorded = self._recorded
        missed = self._missed_removed + sum(track.missed for track in self._tracks.values())
        if self._trouble and self._is_open and (is_idle or recorded > self._recorded_before):
            log.warning("%s: the recording goes on; %d frames are missing", self.name, missed - self._missed_before)
            self._trouble, self._missed_before = "", missed
        self._statistics = RecordingStatistics(recorded, missed, self._archive.size_bytes, self._trouble)


def _report_of(options: RecordingOptions, report: ReportOptions) -> ReportOptions:
    """The rules that count here, all of them where none is named."""
    known = [rule.name for rule in report.rules]
    for name in options.events:
        if name not in known:
            do = f"Use {', '.join(known)}." if known else "Add an event of that name."
            raise UsageError("a recording waits for an event that is not there", name, do)
    rules = tuple(rule for rule in report.rules if not options.events or rule.name in options.events)
    return replace(report, rules=rules, regions=False)
