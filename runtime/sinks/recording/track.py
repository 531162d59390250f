"""`Track`: the recording of one source."""

from __future__ import annotations

import logging
from collections import deque
from functools import partial
from typing import Any

from vidseg.runtime.clock import Clock
from vidseg.runtime.frame import Frame, Image, Segmentation
from vidseg.runtime.results.report import Reporter
from vidseg.runtime.sinks.recording.archive import Archive
from vidseg.runtime.sinks.recording.encoder import PictureEncoder
from vidseg.runtime.sinks.recording.event_log import event_log
from vidseg.runtime.sinks.recording.options import RecordingOptions
from vidseg.runtime.sinks.recording.packets import EncodedPicture
from vidseg.runtime.sinks.recording.preroll import PreRoll
from vidseg.runtime.sinks.recording.series import Series
from vidseg.runtime.sinks.timeline import Timeline
from vidseg.runtime.sinks.wall_time import iso_text, wall_ns_of

log = logging.getLogger(__name__)

MAX_UNTOLD = 1000
"""Events that wait for room on the disk; behind that the oldest are forgotten."""


class Track:
    """Decides what of a source is recorded, and encodes it.

    Args:
        source: its name.
        archive: where the segments are.
        options: of the recording.
        reporter: tells the source's events.
        clock: for wall-clock times.

    Attributes:
        offered: frames that were to be recorded, those before events included.
        series: the segments.
    """

    def __init__(
        self, source: str, archive: Archive, options: RecordingOptions, *, reporter: Reporter, clock: Clock
    ) -> None:
        self.offered = 0
        self.series = Series(source, archive, options.segment_s, partial(wall_ns_of, clock))
        self._source = source
        self._archive = archive
        self._options = options
        self._reporter = reporter
        self._clock = clock
        self._timeline = Timeline()
        self._time_ns = 0
        self._active: list[str] = []
        self._post_until_ns = -1
        self._untold: deque[tuple[int, dict[str, Any]]] = deque(maxlen=MAX_UNTOLD)
        self._encoder: PictureEncoder | None = None
        self._epoch: int | None = None
        self._recent = PreRoll(options.pre_s if options.events else 0.0, round(options.pre_mib * 2**20))
        self._has_warned = False

    @property
    def recorded(self) -> int:
        """Frames that are on the disk and play."""
        return self.series.kept

    @property
    def missed(self) -> int:
        """Frames that were offered and not written."""
        return self.offered - self.series.written

    @property
    def is_wanted(self) -> bool:
        """The newest frame is to be recorded."""
        return not self._options.events or bool(self._active) or self._time_ns <= self._post_until_ns

    def hear(self, segmentation: Segmentation) -> None:
        """Take note of a result, its time and its events, whether or not it can be recorded."""
        frame = segmentation.frame
        self._time_ns = self._timeline.place_ns(frame)
        if self._reporter.options.rules:
            document = self._reporter.document(segmentation)
            self._active = document["active"]
            for change in document["events"]:
                self._note(change["name"], change["change"], frame.captured_ns, share=change["share"])
                if change["change"] == "ended":
                    self._post_until_ns = self._time_ns + round(self._options.post_s * 1e9)
        self.offered += self.is_wanted

    def record(self, frame: Frame, picture: Image) -> None:
        """Record the frame that was heard of last, where it is wanted, or keep it in memory.

        Args:
            frame: the frame.
            picture: (H, W, 3) uint8 BGR, what is to be seen of it.

        Raises:
            OSError, FFmpegError: the disk or the encoder says no.
        """
        self._adapt(frame, picture)
        if self.is_wanted:
            self._write(picture, frame.captured_ns)
        else:
            self.series.finish()
            self._remember(picture, frame.captured_ns)
        self._tell()

    def interrupt(self) -> None:
        """What comes next does not continue what was: end the segment, forget what is in memory.

        Raises:
            OSError, FFmpegError: the disk says no. What was complete plays.
        """
        self._recent.clear()
        self.series.finish()

    def stop(self) -> None:
        """The run ends, or the source is removed, and with it every event that goes on.

        Raises: as `interrupt`.
        """
        for name in self._active:
            self._note(name, "stopped", self._clock.now_ns())
        self._active = []
        self._tell()
        self.interrupt()

    def _adapt(self, frame: Frame, picture: Image) -> None:
        """To another size, and to another connection."""
        size_wh = (picture.shape[1], picture.shape[0])
        has_size = self._encoder is not None and self._encoder.size_wh == size_wh
        if not has_size or frame.epoch != self._epoch:
            self.interrupt()
            self._epoch = frame.epoch
        if not has_size:
            self._encoder = PictureEncoder(size_wh)

    def _write(self, picture: Image, captured_ns: int) -> None:
        begins = self.series.segment is None
        if begins and not self._options.events:
            self._recent.clear()
        before = list(self._recent) if begins else []
        keyframe = not before if begins else self.series.is_due(self._time_ns)
        encoded = self._encoded(picture, captured_ns, keyframe=keyframe)
        self.offered += len(before)
        if begins:
            self._warn_of_memory()
        for one in before + encoded:
            self.series.write(one)

    def _remember(self, picture: Image, captured_ns: int) -> None:
        if not self._options.pre_s:
            self._recent.clear()
            return
        self._encoded(picture, captured_ns, keyframe=not self._recent.size_bytes)

    def _encoded(self, picture: Image, captured_ns: int, *, keyframe: bool) -> list[EncodedPicture]:
        """What the encoder makes of it; it is in memory as well."""
        assert self._encoder is not None
        encoded = list(self._encoder.encode(picture, self._time_ns, captured_ns, keyframe=keyframe))
        for one in encoded:
            self._recent.push(one)
        return encoded

    def _warn_of_memory(self) -> None:
        if self._recent.is_cut and not self._has_warned:
            self._has_warned = True
            log.warning(
                "%s: %g MiB hold %.1f s before an event instead of %g s; use a larger pre_mib",
                self._source, self._options.pre_mib, self._recent.held_s, self._options.pre_s,
            )  # fmt: skip

    def _note(self, event: str, change: str, captured_ns: int, share: float | None = None) -> None:
        when = iso_text(wall_ns_of(self._clock, captured_ns))
        document = {"event": event, "change": change, "source": self._source, "share": share, "time": when}
        self._untold.append((self._time_ns, document))

    def _tell(self) -> None:
        """Write down what has changed, with the place where it is to be seen."""
        while self._untold:
            time_ns, document = self._untold[0]
            segment = self.series.segment
            place: dict[str, Any] = {"file": None, "at_s": None}
            if segment is not None and time_ns >= segment.start_ns:
                place = {"file": segment.path.name, "at_s": round((time_ns - segment.start_ns) / 1e9, 3)}
            event_log(self._archive.folder_of(self._source)).append(document | place)
            self._untold.popleft()
