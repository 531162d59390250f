"""Measuring the engines and variants of a bundle against each other, interleaved, so that noise hits all alike."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from vidseg.runtime.bundle import Bundle
from vidseg.runtime.engines import Engine, Ticket, predict
from vidseg.runtime.engines.candidates import MIN_AGREEMENT, Candidate, min_agreement, sample_agreement
from vidseg.runtime.engines.opening import Progress, nothing_said
from vidseg.runtime.errors import DeviceError, EngineError
from vidseg.runtime.frame import Image

IN_FLIGHT = 2
"""As the pipeline keeps for recorded sources."""


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """How long to measure.

    Attributes:
        seconds: for all candidates together, without loading them.
        min_rounds: of one latency and one throughput block a candidate, even if that takes longer.
        block: frames a block.
    """

    seconds: float = 6.0
    min_rounds: int = 3
    block: int = 4


@dataclass(frozen=True, slots=True)
class BenchRow:
    """What was measured of one candidate; NaN where it could not be.

    Attributes:
        latency_p50_ms, latency_p99_ms: of one frame at a time, from the picture to the class map.
        throughput_fps: with two frames in flight.
        open_ms: to load it.
        agreement: share of the samples' pixels with the right class.
        required: the share that it needs to be taken.
        frames: measured.
        error: why it could not be measured; None where it could.
        device_failed: that was the device's fault, or for want of room on it.
    """

    candidate: Candidate
    latency_p50_ms: float = np.nan
    latency_p99_ms: float = np.nan
    throughput_fps: float = np.nan
    open_ms: float = np.nan
    agreement: float = np.nan
    frames: int = 0
    error: str | None = None
    required: float = MIN_AGREEMENT
    device_failed: bool = False


@dataclass(slots=True)
class _Runner:
    """One candidate while it is measured."""

    candidate: Candidate
    engine: Engine
    open_ms: float
    agreement: float
    required: float
    latencies_ms: list[float] = field(default_factory=list)
    rates_fps: list[float] = field(default_factory=list)

    def measured(self, images: Sequence[Image]) -> _Runner | BenchRow:
        """Itself after one round, or why it failed."""
        try:
            self.measure(images)
        except (EngineError, DeviceError) as error:
            return _failed(self.candidate, error)
        return self

    def measure(self, images: Sequence[Image]) -> None:
        predict(self.engine, images[-1])  # the one before has emptied the caches
        for image in images:
            started = perf_counter()
            predict(self.engine, image)
            self.latencies_ms.append((perf_counter() - started) * 1e3)
        self.rates_fps.append(self._rate(images))

    def _rate(self, images: Sequence[Image]) -> float:
        pending: deque[Ticket] = deque()
        started = perf_counter()
        for image in images:
            pending.append(self.engine.enqueue(image[None]))
            if len(pending) == IN_FLIGHT:
                self._finish(pending.popleft())
        while pending:
            self._finish(pending.popleft())
        return len(images) / (perf_counter() - started)

    def _finish(self, ticket: Ticket) -> None:
        self.engine.decode({name: values[0] for name, values in ticket.result().items()})

    def row(self) -> BenchRow:
        p50, p99 = np.percentile(self.latencies_ms, (50, 99)).tolist()
        return BenchRow(
            self.candidate, p50, p99, float(np.median(self.rates_fps)), self.open_ms, self.agreement,
            len(self.latencies_ms), required=self.required,
        )  # fmt: skip


def bench(
    bundle: Bundle,
    candidates: Sequence[Candidate],
    options: BenchOptions | None = None,
    progress: Progress = nothing_said,
    load: Callable[[Candidate], Engine] | None = None,
) -> list[BenchRow]:
    """Measure candidates on the bundle's samples, or on the rendered street where it has none.

    Args:
        bundle: the model.
        candidates: what to compare, see `candidates_of`.
        options: how long.
        progress: called with the share that is done, 0..1.
        load: makes a candidate's engine; None: `Candidate.open`, without anything else.

    Returns:
        A row for each candidate, in their order; those that fail say why.
    """
    options = options or BenchOptions()
    images = _images(bundle, options.block)
    with ExitStack() as stack:
        found = [
            _loaded(bundle, candidate, stack, load or (lambda candidate: candidate.open(bundle)))
            for candidate in candidates
        ]
        started, rounds = perf_counter(), 0
        while any(isinstance(one, _Runner) for one in found) and (
            rounds < options.min_rounds or perf_counter() - started < options.seconds
        ):
            found = [one.measured(images) if isinstance(one, _Runner) else one for one in found]
            rounds += 1
            progress(min(rounds / options.min_rounds, (perf_counter() - started) / max(options.seconds, 1e-9), 1.0))
    return [one.row() if isinstance(one, _Runner) else one for one in found]


def _failed(candidate: Candidate, error: Exception) -> BenchRow:
    return BenchRow(candidate, error=str(error), device_failed=isinstance(error, DeviceError))


def _loaded(
    bundle: Bundle, candidate: Candidate, stack: ExitStack, load: Callable[[Candidate], Engine]
) -> _Runner | BenchRow:
    started = perf_counter()
    try:
        engine = stack.enter_context(load(candidate))
        open_ms = (perf_counter() - started) * 1e3
        agreement = sample_agreement(bundle, engine)
        return _Runner(candidate, engine, open_ms, agreement, min_agreement(bundle, candidate))
    except (EngineError, DeviceError) as error:
        return _failed(candidate, error)


def _images(bundle: Bundle, count: int) -> list[Image]:
    samples = [image for image, _ in bundle.samples()]
    if not samples:
        from vidseg.runtime.sources.street.render import Street

        street = Street(0, bundle.manifest.input.size_wh)
        samples = [street.render(index * 30, float(index))[0] for index in range(count)]
    return [samples[number % len(samples)] for number in range(count)]


def bench_text(rows: Sequence[BenchRow], chosen: Candidate) -> str:
    """The rows as a table; a star stands before the one that is chosen."""
    wide = max(len("variant"), *(len(row.candidate.variant) for row in rows)) if rows else 0
    lines = [f"  {'engine':<12} {'variant':<{wide}} {'threads':>7} {'p50 ms':>8} {'p99 ms':>8} {'fps':>7}  samples"]
    for row in rows:
        candidate = row.candidate
        star = "*" if candidate == chosen else " "
        name = f"{star} {candidate.engine:<12} {candidate.variant:<{wide}} {candidate.threads or 'all':>7}"
        if row.error is not None:
            lines.append(f"{name}  {row.error}")
            continue
        times = f"{row.latency_p50_ms:8.2f} {row.latency_p99_ms:8.2f} {row.throughput_fps:7.1f}"
        lines.append(f"{name} {times}  {row.agreement:.4%}")
    return "\n".join(lines)


def bench_document(rows: Sequence[BenchRow], chosen: Candidate) -> dict[str, Any]:
    """The same as plain values for JSON; NaN becomes None."""
    plain = [asdict(row) for row in rows]
    for row in plain:
        row |= {name: None for name, value in row.items() if isinstance(value, float) and np.isnan(value)}
    return {"chosen": asdict(chosen), "rows": plain}
