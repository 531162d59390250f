"""Quantizing a fused graph: calibrate, find what may be quantized, write it for each engine, prove it.

Every candidate is judged on frames that it was not calibrated on. What is slower than float, or loses more than the
budget, is not written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vidseg.calibration.frames import CalibrationFrames
from vidseg.calibration.gate import Comparison
from vidseg.calibration.sensitivity import GroupNoise
from vidseg.calibration.table import CalibrationTable
from vidseg.export.calibrating import SHIFT_FRAMES, bias_shifts, ranges_of
from vidseg.export.frames import every
from vidseg.export.graph import Graph
from vidseg.export.groups import FusionGroup, find_groups
from vidseg.export.laboratory import Laboratory, Tick
from vidseg.export.lowering import CPU_WEIGHT_LEVELS, ONNXRUNTIME, OPENVINO, for_openvino
from vidseg.export.quantize import MASTER, QuantizedForm, Ranges, quantize
from vidseg.export.search import Exam, Search
from vidseg.export.timing import latencies_ms, without_useless
from vidseg.runtime.decoding import outputs_of
from vidseg.runtime.engines import Engine
from vidseg.runtime.engines.candidates import installed_engines
from vidseg.runtime.engines.graph import GraphOptions
from vidseg.runtime.engines.opening import EngineName, open_graph
from vidseg.runtime.frame import Image
from vidseg.runtime.manifest import UpsamplingSpec

NOISE_FRAMES = 4

FORMS: dict[EngineName, tuple[QuantizedForm, Callable[[bytes], bytes]]] = {
    "openvino": (OPENVINO, for_openvino),
    "onnxruntime": (ONNXRUNTIME, lambda content: content),
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
        upsampling: of the cut variant; None where there is none.
        size_wh: of the output grid.
    """

    name: str
    content: bytes
    scores: str
    axis: int
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
        content: the quantized graph.
        groups: names of the groups in it.
        comparison: on the verification frames.
        faults: what is beyond the budget; empty where it passes.
        useless: families of groups that are float because they gain nothing.
        latency_ms: by variant, measured in turns: `float`, `float-cut`, `int8`, `int8-cut`.
    """

    engine: EngineName
    content: bytes
    groups: tuple[str, ...]
    comparison: Comparison
    faults: tuple[str, ...]
    useless: tuple[str, ...]
    latency_ms: Mapping[str, float]

    @property
    def gains(self) -> bool:
        """True where it is faster than every float form in this engine."""
        fastest = {kind: min(ms for name, ms in self.latency_ms.items() if name.startswith(kind)) for kind in _KINDS}
        return fastest["int8"] < fastest["float"]

    @property
    def ships(self) -> bool:
        """True where it passes and gains."""
        return bool(self.groups) and not self.faults and self.gains


_KINDS = ("float", "int8")


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedModel:
    """All that quantizing gave.

    Attributes:
        table: the calibration table.
        groups: all groups of the graph.
        candidates: names of those that may be quantized at all.
        noise: by group, the noisiest first.
        shifts: bias shifts that were kept, by group.
        accurate: names of the groups within the budget.
        tried: number of quantized groups and faults of each candidate that the gate saw.
        targets: by engine.
        master: the graph for TensorRT: signed, weights of 8 bits, depthwise float; None where no group is left.
    """

    table: CalibrationTable
    groups: tuple[FusionGroup, ...]
    candidates: tuple[str, ...]
    noise: Sequence[GroupNoise]
    shifts: Mapping[str, NDArray[np.float32]]
    accurate: tuple[str, ...]
    tried: Sequence[tuple[int, list[str]]]
    targets: Sequence[TargetResult]
    master: bytes | None = field(default=None, repr=False)

    def share_of_macs(self, names: Sequence[str]) -> float:
        """Share of the network's multiply-adds that these groups do."""
        total = sum(group.macs for group in self.groups)
        return sum(group.macs for group in self.groups if group.name in set(names)) / max(total, 1)


def candidates_among(groups: Sequence[FusionGroup]) -> list[FusionGroup]:
    """Groups that may be quantized: with a weight, on more than one position, wide enough to fill a vector."""
    return [group for group in groups if group.weight is not None and group.positions > 1 and not group.is_narrow]


def quantize_model(
    model: FloatModel, table: CalibrationTable, frames: CalibrationFrames, exam: Exam, stage: Stage
) -> QuantizedModel:
    """Quantize for every engine that is installed, and for TensorRT.

    Args:
        model: the float graph.
        table: of its calibration.
        frames: still open.
        exam: what candidates have to pass.
        stage: progress.
    """
    graph = Graph(model.content)
    groups = find_groups(graph)
    candidates = candidates_among(groups)
    images = frames.calibration
    laboratory = Laboratory.fastest(model.name, model.content, images[0])
    shifts = bias_shifts(
        laboratory, graph, candidates, table.amax(), every(images, 2 * SHIFT_FRAMES), CPU_WEIGHT_LEVELS
    )
    ranges = ranges_of(table, shifts)
    form, lower = FORMS[laboratory.engine]
    search = Search(laboratory, graph, model.scores, model.axis, form, lower)
    tick = stage("noise of each group", len(candidates) + min(8, len(candidates)))
    noise = search.rank(candidates, ranges, every(images, NOISE_FRAMES), tick)
    accurate = search.fewest_floats(noise, candidates, ranges, exam, stage("gate", 0))
    targets = []
    for engine in installed_engines():
        chosen = accurate
        form, lower = FORMS[engine]
        own = Search(Laboratory(model.name, engine), graph, model.scores, model.axis, form, lower)
        if engine != laboratory.engine:
            chosen = (
                own.fewest_floats(
                    [group for group in noise if group.name in {kept.name for kept in accurate}],
                    accurate,
                    ranges,
                    exam,
                    stage(f"gate in {engine}", 0),
                )
                if accurate
                else []
            )
            search.tried += own.tried
        if chosen:
            targets.append(_target(model, own, chosen, ranges, exam, images[0], stage))
    dense = [group for group in accurate if not group.depthwise]
    return QuantizedModel(
        table, groups, tuple(group.name for group in candidates), noise, shifts,
        tuple(group.name for group in accurate), search.tried, targets,
        quantize(graph, dense, ranges, MASTER) if dense else None,
    )  # fmt: skip


def _target(
    model: FloatModel,
    search: Search,
    groups: Sequence[FusionGroup],
    ranges: Ranges,
    exam: Exam,
    image: Image,
    stage: Stage,
) -> TargetResult:
    engine = search.laboratory.engine
    quickest = model.upsampling
    tick = stage(f"timing {engine}", 1)
    kept, useless = without_useless(
        groups, lambda some: model.opener(search.content(some, ranges), engine, quickest), image
    )
    content = search.content(kept, ranges)
    tick()
    with model.opener(content, engine, None)() as opened:
        comparison = exam.sit(opened, stage(f"verifying {engine}", len(exam.references)))
    openers = {}
    for ending, upsampling in model.forms().items():
        openers[f"float{ending}"] = model.opener(model.content, engine, upsampling, "fp32")
        openers[f"int8{ending}"] = model.opener(content, engine, upsampling)
    return TargetResult(
        engine, content, tuple(group.name for group in kept), comparison, tuple(exam.faults(comparison)),
        tuple(useless), latencies_ms(openers, image),
    )  # fmt: skip
