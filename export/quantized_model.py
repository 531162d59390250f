"""What quantizing a model gives: the graphs for each engine and for TensorRT, with what they lose and gain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vidseg.calibration.gate import Comparison
from vidseg.calibration.sensitivity import GroupNoise
from vidseg.calibration.table import CalibrationTable
from vidseg.export.groups import FusionGroup, total_macs
from vidseg.runtime.decoding import outputs_of
from vidseg.runtime.engines import Engine
from vidseg.runtime.engines.choice import is_clearly_faster
from vidseg.runtime.engines.graph import GraphOptions
from vidseg.runtime.engines.opening import EngineName, open_graph
from vidseg.runtime.manifest import UpsamplingSpec


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
        useless: families of groups that are float because they gain nothing: names of the groups.
        latency_ms: by variant, measured in turns: `float`, `float-cut`, `int8`, `int8-cut`.
        fastest_float_ms: latency of the fastest float variant in any engine here.
        planned: a recorded plan names these groups: what is written does not depend on how fast this machine is.
    """

    engine: EngineName
    content: bytes
    groups: tuple[str, ...]
    comparison: Comparison
    faults: tuple[str, ...]
    useless: Mapping[str, tuple[str, ...]]
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    fastest_float_ms: float = inf
    planned: bool = False

    @property
    def gains(self) -> bool:
        """True where it is clearly faster than every float variant in any engine here: times differ by chance."""
        return is_clearly_faster(self.fastest_ms("int8"), self.fastest_float_ms)

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
        half: float16 beside them, for strongly typed ones; None where that costs more than the budget.
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
class DlaResult:
    """The graph for NVIDIA's DLA: float32, without Q/DQ.

    Attributes:
        content: the graph.
        ranges: of its activations, a document of `vidseg.export.dla`.
        simulated: what comes of both, with Q/DQ.
        groups: names of the groups that are to be quantized.
        comparison: of the simulation, in exact arithmetic.
    """

    content: bytes
    ranges: bytes
    simulated: bytes
    groups: tuple[str, ...]
    comparison: Comparison


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
        master: for TensorRT; None where there is none.
        no_master: why; empty where there is one.
        dla: for DLA; None where there is none.
        no_dla: why; empty where there is one, and where nobody asked.
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
    no_master: str
    dla: DlaResult | None = None
    no_dla: str = ""

    def share_of_macs(self, names: Sequence[str]) -> float:
        """Share of the network's multiply-adds that these groups do."""
        return total_macs(named(self.groups, names)) / max(total_macs(self.groups), 1)


def named(groups: Sequence[FusionGroup], names: Sequence[str]) -> list[FusionGroup]:
    """The groups that have one of these names, in their own order."""
    wanted = set(names)
    return [group for group in groups if group.name in wanted]
