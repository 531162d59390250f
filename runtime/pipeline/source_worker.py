"""What a source's thread does: read it into its slot, and open it again where it is lost."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace

from vidseg.runtime.errors import FrameError, SourceError, SourceOpenError, SourceRefusedError
from vidseg.runtime.frame import Frame
from vidseg.runtime.pipeline.books import Books
from vidseg.runtime.pipeline.heartbeats import Heartbeats
from vidseg.runtime.pipeline.intake import Intake
from vidseg.runtime.pipeline.log_budget import LogBudget
from vidseg.runtime.pipeline.retry import Backoff, Retry
from vidseg.runtime.pipeline.source_control import SourceControl
from vidseg.runtime.sources import Source

log = logging.getLogger(__name__)

LINES_AT_ONCE = 8
LINE_INTERVAL_S = 60.0
"""What the log says of a source that comes and goes."""

DAMAGE_INTERVAL_S = 30.0
"""Between two lines about damaged frames of a source."""


class SourceWorker:
    """Reads one source into its slot until it ends or is told to.

    Args:
        source: to read; a recorded one is never opened again.
        intake: has its slot.
        books: where frames are counted.
        heartbeats: are told how the source is.
        control: what others ask. A live source that is paused is closed meanwhile; a recorded one waits.
        retry: what to do where it is lost.
        first_epoch: of a source whose name had others before.

    Attributes:
        next_epoch: that no frame has had.
    """

    def __init__(
        self,
        source: Source,
        intake: Intake,
        books: Books,
        heartbeats: Heartbeats,
        control: SourceControl,
        *,
        retry: Retry = "never",
        first_epoch: int = 0,
    ) -> None:
        self._source = source
        self._heartbeats = heartbeats
        self._intake = intake
        self._books = books
        self._control = control
        self._retry: Retry = retry if source.live else "never"
        self._backoff = Backoff()
        self._first_epoch = self.next_epoch = first_epoch
        self._good = self._bad = 0
        self._comings = LogBudget(log, source.name, books.clock, at_once=LINES_AT_ONCE, interval_s=LINE_INTERVAL_S)
        self._damage = LogBudget(log, source.name, books.clock, at_once=1, interval_s=DAMAGE_INTERVAL_S)
        self._expected = (0, 0)
        self._lost: tuple[str, int] | None = None

    def __call__(self) -> None:
        """Run to the end.

        Raises:
            SourceError: as the source does, where it is not tried again; or none of its frames could be read.
        """
        try:
            while self._control.wait_until_wanted():
                self._heartbeats.wanted(self._source.name)
                if self._once():
                    break
            if self._bad and not self._good and not self._control.stopped:
                raise SourceOpenError(f"{self._source.name}: no frame can be read", f"{self._bad} bad ones")
        except BaseException:
            self._heartbeats.lost(self._source.name)
            raise
        finally:
            try:
                self._source.close()
            finally:
                self._damage.close()
                self._comings.close()
                self._heartbeats.ended(self._source.name)
                self._intake.finish(self._source.name)

    def _once(self) -> bool:
        """Open the source and read it; True at its end, False where it is to be opened again."""
        try:
            self._source.open(self._books.clock, self._control.halt)
            while self._may_go_on() and self._read_one():
                pass
        except SourceError as error:
            if self._retry == "never" or (self._retry == "once_seen" and not self._good):
                raise
            self._wait_for_it(error)
            return False
        if self._control.stopped or not self._control.halt.is_set():
            return True
        self._source.close()  # it is paused
        self._heartbeats.paused(self._source.name)
        return False

    def _may_go_on(self) -> bool:
        if not self._source.live:
            self._control.wait_while_paused()
        return not self._control.halt.is_set()

    def _wait_for_it(self, error: SourceError) -> None:
        name = self._source.name
        with suppress(SourceError):
            self._source.close()
        refused = isinstance(error, SourceRefusedError)
        self._heartbeats.lost(name, refused=refused)
        wait_s = self._backoff.wait_s(error)
        text = str(error)
        if self._lost is None or self._lost[0] != text:
            often = "less and less often" if refused else "every second"
            self._comings.warn(f"{text} It is tried again, {often}.")
        now_ns = self._books.clock.now_ns()
        self._lost = (text, self._lost[1] if self._lost else now_ns)
        self._books.clock.sleep_until(now_ns + round(wait_s * 1e9), self._control.halt)

    def _count_gap(self, frame: Frame) -> None:
        epoch, expected = self._expected
        if frame.epoch == epoch and frame.index > expected:
            self._books.ledger.miss(frame.index - expected)
        self._expected = (frame.epoch, frame.index + 1)

    def _read_one(self) -> bool:
        ledger = self._books.ledger
        try:
            frame = self._read()
        except FrameError as error:
            self._expected = (self._expected[0], self._expected[1] + 1)
            ledger.capture_bad()
            self._bad += 1
            self._damage.warn(str(error))
            return True
        if frame is None:
            return False
        self._is_there()
        if self._first_epoch:
            frame = replace(frame, epoch=frame.epoch + self._first_epoch)
        self.next_epoch = frame.epoch + 1
        if self._source.live:
            self._count_gap(frame)
        self._heartbeats.frame(self._source.name)
        ledger.capture(frame)
        for given_up in self._intake.put(frame):
            ledger.drop(given_up, "stopped" if given_up is frame else "replaced")
        return True

    def _read(self) -> Frame | None:
        if self._source.live:  # it mostly waits for its camera, and knows for how long
            self._intake.rest(self._source.name)
            return self._source.read()
        books = self._books
        with books.watchdog.working(f"source {self._source.name}"), books.meters.timed("read"):
            return self._source.read()

    def _is_there(self) -> None:
        self._good += 1
        self._backoff.works()
        if self._lost is not None:
            away_s = (self._books.clock.now_ns() - self._lost[1]) / 1e9
            self._comings.warn(f"{self._source.name} is back after {away_s:.1f} s.")
            self._lost = None
