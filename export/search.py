"""Finding the groups that can be quantized within the budget: noise ranks them, the gate decides."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from vidseg.calibration.gate import Budget, Comparison, LabelOptions, compare, faults
from vidseg.calibration.sensitivity import GroupNoise, NoiseMeter, fewest_floats, rank_groups
from vidseg.export.graph import Graph
from vidseg.export.groups import FusionGroup
from vidseg.export.observe import with_outputs
from vidseg.export.qdq import QuantizedForm, Ranges, quantize
from vidseg.export.references import References
from vidseg.export.runner import GraphRunner, Tick
from vidseg.runtime.engines import Engine
from vidseg.runtime.engines.opening import open_graph
from vidseg.runtime.frame import Image
from vidseg.runtime.geometry import Fit
from vidseg.runtime.segmenter import Segmenter

WORST = 8
"""Groups that are measured one-off too."""

MAX_WORKERS = 8
"""That rank groups at once; each holds a graph."""


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

    references: References
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
        tried: number of quantized groups and faults of each candidate that the gate saw.
    """

    runner: GraphRunner
    graph: Graph
    scores: str
    axis: int
    form: QuantizedForm
    lower: Callable[[bytes], bytes]
    tried: list[tuple[int, list[str]]] = field(default_factory=list)
    _compared: dict[frozenset[str], Comparison] = field(default_factory=dict, init=False)

    def content(self, groups: Iterable[FusionGroup], ranges: Ranges) -> bytes:
        """A candidate as the engine takes it."""
        return self.lower(quantize(self.graph, list(groups), ranges, self.form))

    def rank(
        self, groups: Sequence[FusionGroup], ranges: Ranges, images: Sequence[Image], tick: Tick
    ) -> list[GroupNoise]:
        """All groups, the noisiest first."""
        by_name = {group.name: group for group in groups}
        runner = replace(self.runner, threads=1)  # of each worker: opening a graph takes longer than running it

        def scores(content: bytes) -> list[NDArray[np.float32]]:
            return [values[self.scores] for values in runner.values(content, [self.scores], images)]

        meter = NoiseMeter(scores(with_outputs(self.graph, [self.scores])), self.axis)

        def noise_of(names: frozenset[str]) -> float:
            chosen = [by_name[name] for name in sorted(names)]
            content = quantize(self.graph, chosen, ranges, self.form)
            return meter.noise(scores(self.lower(with_outputs(Graph(content), [self.scores]))))

        workers = min(len(os.sched_getaffinity(0)), MAX_WORKERS)
        return rank_groups(list(by_name), noise_of, min(WORST, len(by_name)), tick, workers)

    def fewest_floats(
        self, order: Sequence[GroupNoise], groups: Sequence[FusionGroup], ranges: Ranges, gate: AccuracyGate, tick: Tick
    ) -> list[FusionGroup]:
        """The groups to quantize so that the gate is passed; none where that cannot be."""

        def passes(names: frozenset[str]) -> bool:
            return self.passes([group for group in groups if group.name in names], ranges, gate, tick)

        macs = {group.name: group.macs for group in groups}
        kept = fewest_floats([group.name for group in order], passes, macs) or frozenset()
        return [group for group in groups if group.name in kept]

    def passes(self, groups: Sequence[FusionGroup], ranges: Ranges, gate: AccuracyGate, tick: Tick) -> bool:
        """Whether the gate lets these quantized groups through."""
        lines = gate.faults(self.compared(groups, ranges, gate, tick))
        self.tried.append((len(groups), lines))
        return not lines

    def compared(self, groups: Sequence[FusionGroup], ranges: Ranges, gate: AccuracyGate, tick: Tick) -> Comparison:
        """A candidate against the float model. Ranges are the same in each call: no set of groups is measured twice."""
        names = frozenset(group.name for group in groups)
        if names not in self._compared:
            with open_graph(self.content(groups, ranges), self.runner.engine, self.runner.options()) as engine:
                self._compared[names] = gate.measure(engine, tick)
        return self._compared[names]
