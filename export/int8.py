"""Quantizing a fused graph: calibrate, find what may be quantized, write it for each engine, prove it.

Every candidate is judged on frames that it was not calibrated on. What is slower than float, or loses more than the
budget, is not written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from vidseg.calibration.frame_store import StoredFrames
from vidseg.calibration.gate import Comparison
from vidseg.calibration.sensitivity import GroupNoise
from vidseg.calibration.table import CalibrationTable
from vidseg.export.calibrating import BIAS_FRAMES, bias_corrections, ranges_of, some_of
from vidseg.export.dla import DLA, groups_for_dla, ranges_document
from vidseg.export.equalize import equalized
from vidseg.export.frames import every
from vidseg.export.graph import Graph
from vidseg.export.groups import FusionGroup, find_groups, total_macs
from vidseg.export.half import in_half, large_activations, rounded
from vidseg.export.lint import lint
from vidseg.export.lowering import CPU_WEIGHT_QMAX, ONNXRUNTIME, OPENVINO, for_onnxruntime, for_openvino
from vidseg.export.plan import Plan
from vidseg.export.qdq import MASTER, QuantizedForm, Ranges, with_bias_corrections
from vidseg.export.quantized_model import (
    DlaResult,
    FloatModel,
    MasterResult,
    QuantizedModel,
    TargetResult,
    named,
)
from vidseg.export.runner import GraphRunner, Tick
from vidseg.export.search import WORST, AccuracyGate, Search
from vidseg.export.timing import families_of, latencies_ms, without_useless
from vidseg.runtime.engines import Engine
from vidseg.runtime.engines.candidates import installed_engines
from vidseg.runtime.engines.opening import EngineName, open_graph
from vidseg.runtime.frame import Image

NOISE_FRAMES = 2
"""For ranking; each costs a run for each group."""

HALF_FRAMES = 16
"""That show which activations float16 cannot hold."""

HOPELESS = 1.5
"""An engine whose float is slower than the fastest by this factor is not searched for layers that gain nothing."""

MIN_FAMILY_SHARE = 0.002
"""Of the network's multiply-adds."""

FORMS: dict[EngineName, tuple[QuantizedForm, Callable[[bytes], bytes]]] = {
    "openvino": (OPENVINO, for_openvino),
    "onnxruntime": (ONNXRUNTIME, for_onnxruntime),
}

Stage = Callable[[str, int], Tick]
"""Starts a step of so many ticks and gives the tick."""


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
        dla: quantize for NVIDIA's DLA too.
    """

    model: FloatModel
    runner: GraphRunner
    table: CalibrationTable
    gate: AccuracyGate
    plan: Plan | None
    stage: Stage
    dla: bool = False

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
            tick = self._gate_tick(self.runner.engine)
            accurate = search.fewest_floats(noise, candidates, ranges, self.gate, tick)
        else:
            noise, accurate = [], named(candidates, plan.accurate)
        self.stage("timing float", 0)
        float_ms = latencies_ms(self._openers(dict.fromkeys(installed_engines(), b"")), images[0], 4, 2)
        targets = []
        for engine in installed_engines():
            own = search if engine == self.runner.engine else self._search(graph, engine)
            if plan is None:
                chosen = accurate if own is search else self._still_accurate(own, noise, accurate, ranges)
                chosen, useless = self._worthwhile(own, chosen, ranges, images[0], float_ms)
            else:
                chosen, useless = named(candidates, plan.targets.get(engine, ())), {}
            targets.append(self._target(own, chosen, useless, ranges))
            search.tried += own.tried if own is not search else []
        ranges = ranges_of(self.table, master_corrections)
        master, no_master = self._master(graph, accurate, noise, ranges, images)
        dla, no_dla = self._for_dla(graph, accurate, noise, ranges) if self.dla else (None, "")
        return QuantizedModel(
            table=self.table,
            groups=groups,
            candidates=tuple(group.name for group in candidates),
            noise=noise,
            corrections=corrections,
            accurate=tuple(group.name for group in accurate),
            tried=search.tried,
            targets=self._timed(targets, images[0]),
            master=master,
            no_master=no_master,
            dla=dla,
            no_dla=no_dla,
        )

    def _search(self, graph: Graph, engine: EngineName) -> Search:
        form, lower = FORMS[engine]
        runner = GraphRunner(self.model.name, engine)
        return Search(runner, graph, self.model.scores, self.model.axis, form, lower)

    def _gate_tick(self, engine: str) -> Tick:
        return self.stage(f"candidates at the gate, {engine}", 0)

    def _still_accurate(
        self, search: Search, noise: Sequence[GroupNoise], groups: Sequence[FusionGroup], ranges: Ranges
    ) -> list[FusionGroup]:
        names = {group.name for group in groups}
        order = [group for group in noise if group.name in names]
        tick = self._gate_tick("TensorRT" if search.runner.exact else search.runner.engine)
        return search.fewest_floats(order, groups, ranges, self.gate, tick) if groups else []

    def _master(
        self,
        graph: Graph,
        groups: Sequence[FusionGroup],
        noise: Sequence[GroupNoise],
        ranges: Ranges,
        images: StoredFrames,
    ) -> tuple[MasterResult | None, str]:
        """The graphs for TensorRT, or why there are none."""
        exact = GraphRunner(self.model.name, "onnxruntime", exact=True)
        search = Search(exact, graph, self.model.scores, self.model.axis, MASTER, lambda content: content)
        if self.plan is None:
            dense = [group for group in groups if not group.depthwise]
            groups = self._still_accurate(search, noise, dense, ranges)
        else:
            groups = named(groups, self.plan.tensorrt)
        if not groups:
            return None, "no set of INT8 layers keeps the accuracy"
        content = search.content(groups, ranges)
        broken = [finding for finding in lint(content) if finding.rule.level == "error"]
        if broken:
            return None, f"TensorRT would refuse it: {broken[0]}"
        tick = self.stage("verifying the graph for TensorRT", len(self.gate.references))
        comparison = search.compared(groups, ranges, self.gate, tick)
        if self.gate.faults(comparison):  # a plan made with another budget
            return None, "it loses more than the budget"
        pictures = some_of(images, HALF_FRAMES)
        tick = self.stage("ranges of float16", len(pictures))
        half = in_half(content, large_activations(exact, content, pictures, tick))
        half_comparison = self._exact(exact, rounded(half))
        names = tuple(group.name for group in groups)
        return MasterResult(content, half if half_comparison else None, names, comparison, half_comparison), ""

    def _for_dla(
        self, graph: Graph, groups: Sequence[FusionGroup], noise: Sequence[GroupNoise], ranges: Ranges
    ) -> tuple[DlaResult | None, str]:
        """The graph for DLA, or why there is none."""
        exact = GraphRunner(self.model.name, "onnxruntime", exact=True)
        search = Search(exact, graph, self.model.scores, self.model.axis, DLA, lambda content: content)
        groups = groups_for_dla(graph, groups)
        if self.plan is None:
            groups = self._still_accurate(search, noise, groups, ranges)
        else:
            groups = named(groups, self.plan.dla or ())
        if not groups:
            return None, "no set of INT8 layers keeps the accuracy"
        tick = self.stage("verifying the graph for DLA", len(self.gate.references))
        comparison = search.compared(groups, ranges, self.gate, tick)
        if self.gate.faults(comparison):  # a plan made with another budget
            return None, "it loses more than the budget"
        content = with_bias_corrections(graph, groups, ranges)
        document = ranges_document(graph, groups, ranges)
        names = tuple(group.name for group in groups)
        return DlaResult(content, document, search.content(groups, ranges), names, comparison), ""

    def _exact(self, runner: GraphRunner, content: bytes) -> Comparison | None:
        """How the graph in float16 does at the gate; None where it fails."""
        tick = self.stage("verifying float16", len(self.gate.references))
        with open_graph(content, runner.engine, runner.options()) as engine:
            found = self.gate.measure(engine, tick)
        return None if self.gate.faults(found) else found

    def _worthwhile(
        self,
        search: Search,
        groups: Sequence[FusionGroup],
        ranges: Ranges,
        image: Image,
        float_ms: Mapping[str, float],
    ) -> tuple[list[FusionGroup], dict[str, tuple[str, ...]]]:
        """The groups without families that gain nothing, and these."""
        engine = search.runner.engine
        own_ms = min(ms for name, ms in float_ms.items() if name.startswith(engine))
        if not groups or own_ms > HOPELESS * min(float_ms.values()):
            return list(groups), {}
        self.stage(f"timing {engine}", 0)

        def opener(some: Sequence[FusionGroup]) -> Callable[[], Engine]:
            return self.model.opener(search.content(some, ranges), engine, self.model.upsampling)

        kept, useless = without_useless(groups, opener, image)
        if useless and not search.passes(kept, ranges, self.gate, self._gate_tick(engine)):
            return list(groups), {}
        return kept, useless

    def _target(
        self, search: Search, groups: Sequence[FusionGroup], useless: Mapping[str, tuple[str, ...]], ranges: Ranges
    ) -> TargetResult:
        engine = search.runner.engine
        content, comparison = b"", self.gate.float_result
        if groups:
            content = search.content(groups, ranges)
            tick = self.stage(f"verifying {engine}", len(self.gate.references))
            comparison = search.compared(groups, ranges, self.gate, tick)
        return TargetResult(
            engine=engine,
            content=content,
            groups=tuple(group.name for group in groups),
            comparison=comparison,
            faults=tuple(self.gate.faults(comparison)),
            useless=useless,
            planned=self.plan is not None,
        )

    def _openers(self, contents: Mapping[EngineName, bytes]) -> dict[str, Callable[[], Engine]]:
        """All variants by engine and name: the float ones, and those of a quantized graph where there is one."""
        return {
            f"{engine} {kind}{ending}": self.model.opener(content, engine, upsampling, precision)
            for engine, quantized in contents.items()
            for kind, precision, content in (("float", "fp32", self.model.content), ("int8", "int8", quantized))
            if content
            for ending, upsampling in self.model.forms().items()
        }

    def _timed(self, targets: Sequence[TargetResult], image: Image) -> list[TargetResult]:
        """With the latencies of all engines and variants, measured in turns."""
        self.stage("timing all variants", 0)
        times = latencies_ms(self._openers({target.engine: target.content for target in targets}), image)
        fastest_ms = min(ms for name, ms in times.items() if " float" in name)
        return [
            replace(
                target,
                fastest_float_ms=fastest_ms,
                latency_ms={
                    name.partition(" ")[2]: ms for name, ms in times.items() if name.startswith(f"{target.engine} ")
                },
            )
            for target in targets
        ]
