"""Plans of a bundle against each other on this machine: what is in them, whether they are right, how fast they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from vidseg.runtime.bundle import Bundle
from vidseg.runtime.cache import private_folder
from vidseg.runtime.engines import Engine
from vidseg.runtime.engines.bench import BenchOptions, BenchRow, bench, bench_document, bench_text
from vidseg.runtime.engines.candidates import Candidate
from vidseg.runtime.engines.choice import fastest
from vidseg.runtime.engines.opening import GpuUse, Progress
from vidseg.runtime.engines.tensorrt.build_process import BuildOptions
from vidseg.runtime.engines.tensorrt.building import (
    Machine,
    forget_settings,
    keep_settings,
    plan_key,
    plan_of,
    this_machine,
)
from vidseg.runtime.engines.tensorrt.inspection import EngineAudit, inspect_plan
from vidseg.runtime.engines.tensorrt.opening import PRECISIONS, open_tensorrt
from vidseg.runtime.engines.tensorrt.plan_cache import plan_cache
from vidseg.runtime.engines.tensorrt.settings import BuildSettings, Precision
from vidseg.runtime.errors import EngineError

ProgressBars: TypeAlias = Callable[[str], AbstractContextManager[Progress]]
"""Starts a bar for a step, and gives what takes the share that is done."""

VARIANTS: Mapping[Precision, str] = {precision: variant for variant, precision in PRECISIONS.items()}
"""What the engine calls a precision."""


class PlanMaker(Protocol):
    """What makes and runs plans of one bundle."""

    def audit(self, settings: BuildSettings, progress: Progress) -> EngineAudit:
        """Build a plan where none is kept, and count what it consists of.

        Raises:
            EngineError: there is no plan.
        """

    def keep(self, settings: BuildSettings) -> None:
        """Build plans of this precision like this from now on."""

    def forget(self, precision: Precision) -> None:
        """Build them as if nothing had been told."""

    def open(self, settings: BuildSettings) -> Engine:
        """An engine with that plan.

        Raises:
            EngineError, DeviceError: it does not run.
        """


class GpuPlanMaker:
    """Plans for the GPU of this machine.

    Args:
        bundle: the model.
        plans: folder where they are kept.
        rebuild: forget those that are there.

    Raises:
        ConfigurationError: the folder cannot be used.
        DeviceError: there is no GPU.
        EngineError: TensorRT or pycuda is missing.
    """

    def __init__(self, bundle: Bundle, plans: Path, *, rebuild: bool = False) -> None:
        self.machine = this_machine()
        self._bundle = bundle
        self._cache = plan_cache(private_folder(plans))
        self._rebuild = rebuild

    def audit(self, settings: BuildSettings, progress: Progress) -> EngineAudit:
        """See `PlanMaker`."""
        options = BuildOptions(progress=progress)
        key = plan_key(self._bundle, settings, self.machine, options.outputs)
        (self._cache.forget if self._rebuild else self._cache.forget_refusal)(key)
        plan = plan_of(self._bundle, settings, self.machine, self._cache, options)
        return inspect_plan(self.machine.library, plan, self._bundle.path.name, settings.dla_core)

    def keep(self, settings: BuildSettings) -> None:
        """See `PlanMaker`."""
        keep_settings(self._bundle, settings, self._cache)

    def forget(self, precision: Precision) -> None:
        """See `PlanMaker`."""
        forget_settings(self._bundle, precision, self._cache)

    def open(self, settings: BuildSettings) -> Engine:
        """See `PlanMaker`."""
        use = GpuUse(self._cache.folder, max_batch=settings.max_batch)
        return open_tensorrt(self._bundle, VARIANTS[settings.precision], use, settings=settings)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was found.

    Attributes:
        audits: of each plan, by precision.
        left_out: why there is no plan, by precision.
        rows: measurements of the plans.
        chosen: the fastest that is right.
    """

    audits: Mapping[Precision, EngineAudit]
    left_out: Mapping[Precision, str]
    rows: Sequence[BenchRow]
    chosen: Candidate

    @property
    def verdict(self) -> str:
        """Which plan to take, and why, in one sentence."""
        times = {row.candidate.variant: row.latency_p50_ms for row in self.rows if row.error is None}
        best = self.chosen.variant
        others = [f"{time / times[best]:.2f} times as fast as {name}" for name, time in times.items() if name != best]
        wrong = [row.candidate.variant for row in self.rows if row.error is None and row.agreement < row.required]
        reasons = others + [f"{name} gives too few of the samples' pixels" for name in wrong]
        return f"verdict: {best}" + (f", {', '.join(reasons)}" if reasons else "")

    def text(self) -> str:
        """For a person: a line for each plan, a table, the verdict."""
        lines = [f"{precision}: {audit.text()}" for precision, audit in self.audits.items()]
        lines += [f"{precision}: {reason}" for precision, reason in self.left_out.items()]
        return "\n".join([*lines, bench_text(self.rows, self.chosen), self.verdict])

    def document(self) -> dict[str, Any]:
        """For JSON: the attributes, nested."""
        audits = {precision: audit.document() for precision, audit in self.audits.items()}
        measured = bench_document(self.rows, self.chosen)
        return {"plans": audits, "left_out": dict(self.left_out), "verdict": self.verdict, **measured}


def compare(
    bundle: Bundle,
    precisions: Sequence[Precision],
    settings: BuildSettings,
    maker: PlanMaker,
    *,
    progress: ProgressBars,
    options: BenchOptions | None = None,
) -> Comparison:
    """Build a plan in each precision, check them on the bundle's samples, and time them in turns.

    Runs to come build like this too.

    Args:
        bundle: the model.
        precisions: which plans; one that cannot be made is left out, unless it is the only one.
        settings: of all of them, but for the precision.
        maker: makes and runs them.
        progress: for each step.
        options: how long to measure.

    Raises:
        EngineError: there is no plan at all, or none that is right.
    """
    wanted = {precision: replace(settings, precision=precision) for precision in precisions}
    audits: dict[Precision, EngineAudit] = {}
    errors: dict[Precision, EngineError] = {}
    for precision, asked in wanted.items():
        with progress(f"building in {precision}") as advance:
            try:
                audits[precision] = maker.audit(asked, advance)
            except EngineError as error:
                errors[precision] = error
    if not audits:
        raise next(iter(errors.values()))

    by_variant = {VARIANTS[precision]: wanted[precision] for precision in audits}
    candidates = [Candidate("tensorrt", variant) for variant in by_variant]
    with progress("comparing") as advance:
        rows = bench(bundle, candidates, options, advance, lambda candidate: maker.open(by_variant[candidate.variant]))
    chosen = fastest(rows, candidates[0])
    for precision, asked in wanted.items():
        if precision in audits:
            maker.keep(asked)
        else:
            maker.forget(precision)
    return Comparison(audits, {precision: str(error) for precision, error in errors.items()}, rows, chosen)


def machine_text(machine: Machine) -> str:
    """The GPU and the library, in one line."""
    device = machine.device
    capability = ".".join(map(str, device.compute_capability))
    mode = f", power mode {device.power_mode}" if device.power_mode else ""
    return f"{device.name} (compute capability {capability}{mode}), {machine.library.title}"


def machine_document(machine: Machine) -> dict[str, Any]:
    """The same as plain values for JSON."""
    return {"device": asdict(machine.device), "library": machine.library.name, "version": machine.library.version}
