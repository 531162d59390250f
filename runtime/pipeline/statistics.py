"""What the pipeline measures of itself: rates, ages, times per stage."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import TypeAlias

import numpy as np

from vidseg.runtime.clock import Clock
from vidseg.runtime.pipeline.ledger import LedgerSnapshot

WINDOW = 512
"""Recent values over which rates, ages and times are taken."""

RECENT_NS = 10_000_000_000
"""Results that are older count for no rate and no age: a run that gives nothing any more has none."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """The pipeline at one instant.

    Attributes:
        elapsed_s: since the start.
        fps: results a second over the recent window, (n-1)/(last-first); 0.0 with fewer than two in the last 10 s.
        mean_fps: the same over the whole run.
        late: hand-overs of results that were older than the deadline.
        age_p50_ms, age_p99_ms: from capture to hand-over, over the recent window; NaN where the last 10 s had none.
        stage_ms: median time of each stage over its recent window, by stage; for sinks `sink NAME`.
        ledger: the books.
        hanging: stages that have been at one piece of work for too long.
        detached: sinks that have failed and get nothing any more.
    """

    elapsed_s: float
    fps: float
    mean_fps: float
    late: int
    age_p50_ms: float
    age_p99_ms: float
    stage_ms: dict[str, float]
    ledger: LedgerSnapshot
    hanging: tuple[str, ...] = ()
    detached: tuple[str, ...] = ()


Report: TypeAlias = Callable[[Statistics], None]


class Meters:
    """Collects the values; every method may be called from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._started_ns = clock.now_ns()
        self._first_ns = 0
        self._results = 0
        self._late = 0
        self._result_ns: deque[int] = deque(maxlen=WINDOW)
        self._ages_ms: deque[float] = deque(maxlen=WINDOW)
        self._stages_ns: defaultdict[str, deque[int]] = defaultdict(lambda: deque(maxlen=WINDOW))

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Measure one pass of a stage; a pass that raises is not counted."""
        started_ns = self._clock.now_ns()
        yield
        self.record_stage(stage, self._clock.now_ns() - started_ns)

    def record_stage(self, stage: str, elapsed_ns: int) -> None:
        """One pass of a stage took that long."""
        with self._lock:
            self._stages_ns[stage].append(elapsed_ns)

    def record_result(self, age_ms: float) -> None:
        """A result was handed over."""
        with self._lock:
            now_ns = self._clock.now_ns()
            if not self._results:
                self._first_ns = now_ns
            self._results += 1
            self._result_ns.append(now_ns)
            self._ages_ms.append(age_ms)

    def record_late(self) -> None:
        """A result was late when it was handed over."""
        with self._lock:
            self._late += 1

    def statistics(
        self, ledger: LedgerSnapshot, hanging: tuple[str, ...] = (), detached: tuple[str, ...] = ()
    ) -> Statistics:
        """Everything measured so far, beside the books and what hangs or has failed."""
        with self._lock:
            now_ns = self._clock.now_ns()
            recent = [n for n, time_ns in enumerate(self._result_ns) if now_ns - time_ns <= RECENT_NS]
            times, ages = [self._result_ns[n] for n in recent], [self._ages_ms[n] for n in recent]
            last_ns = self._result_ns[-1] if self._result_ns else 0
            stages = {stage: list(values) for stage, values in self._stages_ns.items()}
            results, first_ns, late = self._results, self._first_ns, self._late
        p50, p99 = np.percentile(ages, (50, 99)) if ages else (np.nan, np.nan)
        return Statistics(
            elapsed_s=(now_ns - self._started_ns) / 1e9,
            fps=rate(len(times), times[0], times[-1]) if times else 0.0,
            mean_fps=rate(results, first_ns, last_ns),
            late=late,
            age_p50_ms=float(p50),
            age_p99_ms=float(p99),
            stage_ms={stage: float(np.median(values)) / 1e6 for stage, values in sorted(stages.items())},
            ledger=ledger,
            hanging=hanging,
            detached=detached,
        )


def rate(count: int, first_ns: int, last_ns: int) -> float:
    """Events a second: n events span n - 1 intervals. 0.0 where there is no interval."""
    return (count - 1) * 1e9 / (last_ns - first_ns) if count > 1 and last_ns > first_ns else 0.0


class Reporter:
    """Calls a report at a fixed interval, as near as whoever asks allows."""

    def __init__(self, report: Report | None, interval_s: float) -> None:
        self._report = report
        self._interval_s = interval_s
        self._due = monotonic() + interval_s

    def remaining_s(self) -> float:
        """Until the next report is due; infinity where there is none."""
        return inf if self._report is None else max(self._due - monotonic(), 0)

    def report_if_due(self, statistics: Callable[[], Statistics]) -> None:
        """Call the report with fresh statistics when its time has come."""
        if self._report is not None and monotonic() >= self._due:
            self._due = monotonic() + self._interval_s
            self._report(statistics())
