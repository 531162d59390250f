"""Quantizing a fused graph: calibrate, find what may be quantized, write it for each engine, prove it.

Every candidate is judged on frames that it was not calibrated on. What is slower than float, or loses more than the
budget, is not written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vidseg.calibration.frame_store import StoredFrames
from vidseg.calibration.gate import Comparison
from vidseg.calibration.sensitivity import GroupNoise
from vidseg.calibration.table import CalibrationTable
from vidseg.export.calibrating import BIAS_FRAMES, bias_corrections, ranges_of, some_of
from vidseg.export.equalize import equalized
from vidseg.export.frames import every
from vidseg.export.graph import Graph
from vidseg.export.groups import FusionGroup, find_groups, total_macs
from vidseg.export.half import in_half
from vidseg.export.lowering import CPU_WEIGHT_QMAX, ONNXRUNTIME, OPENVINO, for_onnxruntime, for_openvino
from vidseg.export.plan import Plan
from vidseg.export.qdq import MASTER, QuantizedForm, Ranges
from vidseg.export.runner import GraphRunner, Tick
from vidseg.export.search import WORST, AccuracyGate, Search
from vidseg.export.timing import families_of, latencies_ms, without_useless
from vidseg.runtime.decoding import outputs_of
from vidseg.runtime.engines import Engine
from vidseg.runtime.engines.candidates import installed_engines
from vidseg.runtime.engines.graph import GraphOptions
from vidseg.runtime.engines.opening import EngineName, open_graph
from vidseg.runtime.errors import ModelError
from vidseg.runtime.frame import Image
from vidseg.runtime.manifest import UpsamplingSpec

NOISE_FRAMES = 4

MIN_FAMILY_SHARE = 0.002
"""Of the network's multiply-adds."""

FORMS: dict[EngineName, tuple[QuantizedForm, Callable[[bytes], bytes]]] = {
    "openvino": (OPENVINO, for_openvino),
    "onnxruntime": (ONNXRUNTIME, for_onnxruntime),
}

Stage = Callable[[str, int], Tick]
"""Starts a step of so many ticks and gives the tick."""


@dataclass(frozen=True, slots=True, eq=False)
class FloatModel:
    """The float graph to quantize.

    Attributes:
        name: for messages.
        content: the fused graph.
        scores: name of the tensor that decides the classes.
        axis: of its classes.
        probabilities: True where the scores are probabilities, not logits.
        upsampling: of the cut variant; None where there is none.
        size_wh: of the output grid.
    """

    name: str
    content: bytes
    scores: str
    axis: int
    probabilities: bool
    upsampling: UpsamplingSpec | None
    size_wh: tuple[int, int]

    def forms(self) -> dict[str, UpsamplingSpec | None]:
        """Endings of the variants' names, and what the runtime has left to do."""
        return {"": None, **({"-cut": self.upsampling} if self.upsampling else {})}

    def opener(
        self, content: bytes, engine: EngineName, upsampling: UpsamplingSpec | None, precision: str = "int8"
    ) -> Callable[[], Engine]:
        """Opens a graph in an engine as the runtime will."""
        fetch, decode = outputs_of(upsampling, self.size_wh)
        options = GraphOptions(self.name, precision, fetch=fetch, decode=decode)
        return lambda: open_graph(content, engine, options)


@dataclass(frozen=True, slots=True, eq=False)
class TargetResult:
    """What came of quantizing for one engine.

    Attributes:
        engine: the target.
        content: the quantized graph; empty where no group is left.
        groups: names of the groups in it.
        comparison: on the verification frames.
        faults: what is beyond the budget; empty where it passes.
        useless: families of groups that are float because they gain nothing.
        latency_ms: by variant, measured in turns: `float`, `float-cut`, `int8`, `int8-cut`.
        planned: a recorded plan names these groups: what is written does not depend on how fast this machine is.
    """

    engine: EngineName
    content: bytes
    groups: tuple[str, ...]
    comparison: Comparison
    faults: tuple[str, ...]
    useless: tuple[str, ...]
    latency_ms: Mapping[str, float]
    planned: bool = False

    @property
    def gains(self) -> bool:
        """True where it is faster than every float form in this engine."""
        return self.fastest_ms("int8") < self.fastest_ms("float")

    def fastest_ms(self, kind: Literal["float", "int8"]) -> float:
        """The least latency of the variants of a kind; infinity where there is none."""
        return min((ms for name, ms in self.latency_ms.items() if name.startswith(kind)), default=inf)

    @property
    def ships(self) -> bool:
        """True where it passes, and gains or is planned."""
        return bool(self.groups) and not self.faults and (self.gains or self.planned)


@dataclass(frozen=True, slots=True, eq=False)
class MasterResult:
    """The graphs for TensorRT: signed, weights of 8 bits, depthwise convolutions float, because it pads them fourfold.

    Attributes:
        content: float32 beside the quantized groups, for releases with precision flags.
        half: float16 beside them, for strongly typed ones; None where a weight does not fit into it, or an activation
            does not and costs more than the budget.
        groups: names of the groups in both.
        comparison: of the first on the verification frames, in exact arithmetic.
        half_comparison: of the second.
    """

    content: bytes
    half: bytes | None
    groups: tuple[str, ...]
    comparison: Comparison
    half_comparison: Comparison | None


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedModel:
    """All that quantizing gave.

    Attributes:
        table: the calibration table.
        groups: all groups of the graph.
        candidates: names of those that may be quantized at all.
        noise: by group, the noisiest first.
        corrections: bias corrections that were kept, by group.
        accurate: names of the groups within the budget.
        tried: number of quantized groups and faults of each candidate that the gate saw.
        targets: by engine.
        master: for TensorRT; None where nothing is within the budget.
    """

    table: CalibrationTable
    groups: tuple[FusionGroup, ...]
    candidates: tuple[str, ...]
    noise: Sequence[GroupNoise]
    corrections: Mapping[str, NDArray[np.float32]]
    accurate: tuple[str, ...]
    tried: Sequence[tuple[int, list[str]]]
    targets: Sequence[TargetResult]
    master: MasterResult | None

    def share_of_macs(self, names: Sequence[str]) -> float:
        """Share of the network's multiply-adds that these groups do."""
        return total_macs(_named(self.groups, names)) / max(total_macs(self.groups), 1)


def candidates_among(groups: Sequence[FusionGroup]) -> list[FusionGroup]:
    """Groups that may be quantized: with a weight, on more than one position, wide enough to fill a vector.

    Families that do next to nothing of the network's work have nothing to save, and are left out.
    """
    total = total_macs(groups)
    wide = [group for group in groups if group.weight is not None and group.positions > 1 and not group.is_narrow]
    families = families_of(wide).values()
    busy = {group.name for members in families for group in members if total_macs(members) >= MIN_FAMILY_SHARE * total}
    return [group for group in wide if group.name in busy]


@dataclass(frozen=True, slots=True, eq=False)
class Quantizer:
    """Quantizes one model for every engine that is installed, and for TensorRT.

    Attributes:
        model: the float graph.
        runner: where ranges were measured.
        table: of its calibration.
        gate: what candidates have to pass.
        plan: the groups, if they are known already.
        stage: progress.
    """

    model: FloatModel
    runner: GraphRunner
    table: CalibrationTable
    gate: AccuracyGate
    plan: Plan | None
    stage: Stage

    def quantize(self, images: StoredFrames) -> QuantizedModel:
        """Find what may be quantized, and write it.

        Args:
            images: calibration frames at the input's size.
        """
        plan = self.plan
        graph = equalized(Graph(self.model.content), self.table.equalization)
        groups = find_groups(graph)
        candidates = candidates_among(groups)
        measured = some_of(images, 2 * BIAS_FRAMES)
        amax = self.table.amax()
        corrections, master_corrections = (
            bias_corrections(self.runner, graph, candidates, amax, measured, weight_qmax=qmax)
            for qmax in (CPU_WEIGHT_QMAX, MASTER.weight_qmax)
        )
        ranges = ranges_of(self.table, corrections)
        search = self._search(graph, self.runner.engine)
        if plan is None:
            tick = self.stage("noise of each group", len(candidates) + min(WORST, len(candidates)))
            noise = search.rank(candidates, ranges, every(images, NOISE_FRAMES), tick)
            accurate = search.fewest_floats(noise, candidates, ranges, self.gate, self._gate_tick())
        else:
            noise, accurate = [], _named(candidates, plan.accurate)
        targets = []
        for engine in installed_engines():
            own = search if engine == self.runner.engine else self._search(graph, engine)
            if plan is not None:
                useless: list[str] = []
                chosen = _named(candidates, plan.targets.get(engine, ()))
            else:
                chosen = accurate if own is search else self._still_accurate(own, noise, accurate, ranges)
                chosen, useless = self._worthwhile(own, chosen, ranges, images[0])
            targets.append(self._target(own, chosen, useless, ranges, images[0]))
            search.tried += own.tried if own is not search else []
        master = self._master(graph, accurate, noise, ranges_of(self.table, master_corrections))
        return QuantizedModel(
            table=self.table,
            groups=groups,
            candidates=tuple(group.name for group in candidates),
            noise=noise,
            corrections=corrections,
            accurate=tuple(group.name for group in accurate),
            tried=search.tried,
            targets=targets,
            master=master,
        )

    def _search(self, graph: Graph, engine: EngineName) -> Search:
        form, lower = FORMS[engine]
        runner = GraphRunner(self.model.name, engine)
        return Search(runner, graph, self.model.scores, self.model.axis, form, lower)

    def _gate_tick(self) -> Tick:
        return self.stage("candidates at the gate", 0)

    def _still_accurate(
        self, search: Search, noise: Sequence[GroupNoise], groups: Sequence[FusionGroup], ranges: Ranges
    ) -> list[FusionGroup]:
        names = {group.name for group in groups}
        order = [group for group in noise if group.name in names]
        return search.fewest_floats(order, groups, ranges, self.gate, self._gate_tick()) if groups else []

    def _master(
        self, graph: Graph, groups: Sequence[FusionGroup], noise: Sequence[GroupNoise], ranges: Ranges
    ) -> MasterResult | None:
        exact = GraphRunner(self.model.name, "onnxruntime", exact=True)
        search = Search(exact, graph, self.model.scores, self.model.axis, MASTER, lambda content: content)
        if self.plan is None:
            dense = [group for group in groups if not group.depthwise]
            groups = self._still_accurate(search, noise, dense, ranges)
        else:
            groups = _named(groups, self.plan.tensorrt)
        if not groups:
            return None
        content = search.content(groups, ranges)
        tick = self.stage("verifying the graphs for TensorRT", 2 * len(self.gate.references))
        comparison = self._exact(exact, content, tick)
        if comparison is None:  # a plan made with another budget
            return None
        half, half_comparison = None, None
        with suppress(ModelError):
            half = in_half(content)
            half_comparison = self._exact(exact, half, tick)
        if half_comparison is None:
            half = None
        return MasterResult(content, half, tuple(group.name for group in groups), comparison, half_comparison)

    def _exact(self, runner: GraphRunner, content: bytes, tick: Tick) -> Comparison | None:
        """How a graph does at the gate; None where it fails."""
        with open_graph(content, runner.engine, runner.options()) as engine:
            found = self.gate.measure(engine, tick)
        return None if self.gate.faults(found) else found

    def _worthwhile(
        self, search: Search, groups: Sequence[FusionGroup], ranges: Ranges, image: Image
    ) -> tuple[list[FusionGroup], list[str]]:
        engine = search.runner.engine
        self.stage(f"timing {engine}", 0)

        def opener(some: Sequence[FusionGroup]) -> Callable[[], Engine]:
            return self.model.opener(search.content(some, ranges), engine, self.model.upsampling)

        return without_useless(groups, opener, image)

    def _target(
        self, search: Search, groups: Sequence[FusionGroup], useless: Sequence[str], ranges: Ranges, image: Image
    ) -> TargetResult:
        engine = search.runner.engine
        content, comparison = b"", self.gate.float_result
        openers = {
            f"float{ending}": self.model.opener(self.model.content, engine, upsampling, "fp32")
            for ending, upsampling in self.model.forms().items()
        }
        if groups:
            content = search.content(groups, ranges)
            with self.model.opener(content, engine, None)() as opened:
                comparison = self.gate.measure(opened, self.stage(f"verifying {engine}", len(self.gate.references)))
            openers |= {
                f"int8{ending}": self.model.opener(content, engine, upsampling)
                for ending, upsampling in self.model.forms().items()
            }
        return TargetResult(
            engine=engine,
            content=content,
            groups=tuple(group.name for group in groups),
            comparison=comparison,
            faults=tuple(self.gate.faults(comparison)),
            useless=tuple(useless),
            latency_ms=latencies_ms(openers, image),
            planned=self.plan is not None,
        )


def _named(groups: Sequence[FusionGroup], names: Sequence[str]) -> list[FusionGroup]:
    wanted = set(names)
    return [group for group in groups if group.name in wanted]
