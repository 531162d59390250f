"""Finding the groups that can be quantized within the budget: noise ranks them, the gate decides."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vidseg.calibration.gate import Budget, Comparison, LabelOptions, Reference, compare, faults
from vidseg.calibration.sensitivity import GroupNoise, NoiseMeter, fewest_floats, rank_groups
from vidseg.export.graph import Graph
from vidseg.export.groups import FusionGroup
from vidseg.export.observe import with_outputs
from vidseg.export.qdq import QuantizedForm, Ranges, quantize
from vidseg.export.runner import GraphRunner, Tick
from vidseg.runtime.engines import Engine
from vidseg.runtime.engines.opening import open_graph
from vidseg.runtime.frame import Image
from vidseg.runtime.geometry import Fit
from vidseg.runtime.segmenter import Segmenter

WORST = 8
"""Groups that are measured one-off too."""


@dataclass(frozen=True, slots=True, eq=False)
class AccuracyGate:
    """What candidates have to pass.

    Attributes:
        references: verification frames and what the float model says of them.
        float_result: of the float model on them.
        labels: how labels are scored; None without labels.
        budget: what may be lost.
        names: of the label ids.
        fit: how a frame is laid on the input.
    """

    references: Sequence[Reference]
    float_result: Comparison
    labels: LabelOptions | None
    budget: Budget
    names: Sequence[str]
    fit: Fit

    def measure(self, engine: Engine, tick: Tick) -> Comparison:
        """Compare what an engine gives."""
        return compare(Segmenter(engine, self.fit), self.references, self.labels, tick)

    def faults(self, found: Comparison) -> list[str]:
        """What is beyond the budget."""
        return faults(found, self.float_result, self.budget, self.names)


@dataclass(slots=True)
class Search:
    """The search in one engine, with what was tried on the way.

    Attributes:
        runner: where candidates run.
        graph: the float graph.
        scores: name of the tensor that decides the classes.
        axis: of its classes.
        form: how candidates are written.
        lower: last step of writing one for the engine.
    """

    runner: GraphRunner
    graph: Graph
    scores: str
    axis: int
    form: QuantizedForm
    lower: Callable[[bytes], bytes]
    tried: list[tuple[int, list[str]]] = field(default_factory=list)

    def content(self, groups: Iterable[FusionGroup], ranges: Ranges) -> bytes:
        """A candidate as the engine takes it."""
        return self.lower(quantize(self.graph, list(groups), ranges, self.form))

    def rank(
        self, groups: Sequence[FusionGroup], ranges: Ranges, images: Sequence[Image], tick: Tick
    ) -> list[GroupNoise]:
        """All groups, the noisiest first."""
        by_name = {group.name: group for group in groups}
        meter = NoiseMeter(self._scores(with_outputs(self.graph, [self.scores]), images), self.axis)

        def noise_of(names: frozenset[str]) -> float:
            chosen = [by_name[name] for name in sorted(names)]
            content = quantize(self.graph, chosen, ranges, self.form)
            return meter.noise(self._scores(self.lower(with_outputs(Graph(content), [self.scores])), images))

        return rank_groups(list(by_name), noise_of, min(WORST, len(by_name)), tick)

    def fewest_floats(
        self, order: Sequence[GroupNoise], groups: Sequence[FusionGroup], ranges: Ranges, gate: AccuracyGate, tick: Tick
    ) -> list[FusionGroup]:
        """The groups to quantize so that the gate is passed; none where that cannot be."""
        by_name = {group.name: group for group in groups}

        def passes(names: frozenset[str]) -> bool:
            content = self.content([by_name[name] for name in sorted(names)], ranges)
            with open_graph(content, self.runner.engine, self.runner.options()) as engine:
                lines = gate.faults(gate.measure(engine, tick))
            self.tried.append((len(names), lines))
            return not lines

        macs = {group.name: group.macs for group in groups}
        kept = fewest_floats([group.name for group in order], passes, macs) or frozenset()
        return [group for group in groups if group.name in kept]

    def _scores(self, content: bytes, images: Sequence[Image]) -> list[NDArray[np.float32]]:
        return [values[self.scores] for values in self.runner.values(content, [self.scores], images)]
