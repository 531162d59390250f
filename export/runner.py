"""Running graphs over frames in the engine that is fastest for a model, and watching their activations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from vidseg.calibration.observers import Extremes, ExtremesObserver, Histogram, HistogramObserver
from vidseg.calibration.selection import FrameFeatures
from vidseg.export.graph import Graph
from vidseg.export.groups import FusionGroup
from vidseg.export.observe import HIGH, LOW, SAMPLE, channel_axis_of, sample_steps, with_extremes, with_samples
from vidseg.runtime.decoding import CLASS_MAP
from vidseg.runtime.engines.candidates import installed_engines
from vidseg.runtime.engines.graph import GraphOptions
from vidseg.runtime.engines.opening import EngineName, open_graph
from vidseg.runtime.errors import EngineError
from vidseg.runtime.frame import Image

MAX_SAMPLE_BYTES = 64 << 20
"""Of one frame's activations handed over in the second pass; where they are larger, fewer positions are looked at."""

MAX_STRIDE = 32
"""Of these; what is left then does not shrink any more: a position with all of its channels."""

Tick = Callable[[], None]


def _no_tick() -> None:
    pass


@dataclass(frozen=True, slots=True)
class GraphRunner:
    """An engine to run graphs in.

    Attributes:
        name: of the model, for messages.
        engine: the library.
        exact, threads: see `GraphOptions`.
    """

    name: str
    engine: EngineName
    exact: bool = False
    threads: int | None = None

    def options(self, fetch: Sequence[str] = (CLASS_MAP,)) -> GraphOptions:
        """How graphs are loaded here."""
        return GraphOptions(self.name, "int8", self.threads, tuple(fetch), exact=self.exact)

    @classmethod
    def fastest(cls, name: str, content: bytes, image: Image) -> GraphRunner:
        """In the library that runs a graph fastest here: up to six times between them.

        Raises:
            EngineError: none runs it.
        """
        times: dict[EngineName, float] = {}
        reasons = []
        for engine in installed_engines():
            duration = _duration_s(name, content, engine, image)
            if isinstance(duration, float):
                times[engine] = duration
            else:
                reasons.append(str(duration))
        if not times:
            raise EngineError(f"{name}: no engine runs it here", "; ".join(reasons), "Try `vidseg doctor`.")
        return cls(name, min(times, key=lambda engine: times[engine]))

    def values(
        self, content: bytes, outputs: Sequence[str], images: Iterable[Image], tick: Tick = _no_tick
    ) -> Iterator[Mapping[str, NDArray[np.float32]]]:
        """The outputs of a graph for picture after picture, (h, w, 3) uint8 BGR at the input's size.

        Raises:
            EngineError: the library refuses the graph, or fails.
        """
        with open_graph(content, self.engine, self.options(outputs)) as engine:
            for image in images:
                yield engine.enqueue(np.ascontiguousarray(image)[None]).result()
                tick()


def _duration_s(name: str, content: bytes, engine: EngineName, image: Image) -> float | EngineError:
    durations = []
    try:
        with open_graph(content, engine, GraphOptions(name)) as opened:
            for _ in range(4):
                started = perf_counter()
                opened.enqueue(image[None]).result()
                durations.append(perf_counter() - started)
    except EngineError as error:
        return error
    return min(durations[1:])


def watched_tensors(groups: Iterable[FusionGroup]) -> list[str]:
    """The activations that groups read and give, skip branches among them, sorted."""
    tensors = {name for group in groups for name in (*group.inputs, group.skip, group.result) if name is not None}
    return sorted(tensors)


class FeatureExtractor:
    """What a model makes of a frame; a context manager.

    The vector is the highest value of each channel where the network is narrowest in space: what the model itself sees.

    Args:
        runner: where it runs.
        graph: the float graph.
        groups: of it.
        classes: number of the model's classes.
    """

    def __init__(self, runner: GraphRunner, graph: Graph, groups: Sequence[FusionGroup], classes: int) -> None:
        self._classes = classes
        self._watched = sorted({tensor for group in groups for tensor in group.inputs})
        channels = {tensor: graph.shape(tensor)[channel_axis_of(graph, tensor)] for tensor in self._watched}
        self._deepest = min(
            self._watched, key=lambda tensor: (prod(graph.shape(tensor)) // channels[tensor], -channels[tensor], tensor)
        )
        outputs = (CLASS_MAP, *(tensor + ending for tensor in self._watched for ending in (LOW, HIGH)))
        content = with_extremes(graph, self._watched, keep=(CLASS_MAP,))
        self._engine = open_graph(content, runner.engine, runner.options(outputs))

    def __call__(self, image: Image) -> FrameFeatures:
        """Features of a picture at the input's size, (h, w, 3) uint8 BGR."""
        values = self._engine.enqueue(np.ascontiguousarray(image)[None]).result()
        ids = values[CLASS_MAP].ravel()
        shares = np.bincount(ids, minlength=self._classes)[: self._classes] / ids.size
        extremes = [
            max(float(values[tensor + HIGH].max()), -float(values[tensor + LOW].min())) for tensor in self._watched
        ]
        vector = values[self._deepest + HIGH].astype(np.float32)
        return FrameFeatures(vector, np.array(extremes, np.float32), shares.astype(np.float32))

    def __enter__(self) -> FeatureExtractor:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._engine.close()


def extremes_of(
    runner: GraphRunner, graph: Graph, tensors: Sequence[str], images: Iterable[Image], tick: Tick = _no_tick
) -> dict[str, Extremes]:
    """The first pass over calibration frames."""
    observer = ExtremesObserver()
    outputs = [tensor + ending for tensor in tensors for ending in (LOW, HIGH)]
    for values in runner.values(with_extremes(graph, tensors), outputs, images, tick):
        observer.add(
            {tensor: values[tensor + LOW] for tensor in tensors}, {tensor: values[tensor + HIGH] for tensor in tensors}
        )
    return observer.extremes()


def histograms_of(
    runner: GraphRunner,
    graph: Graph,
    extremes: Mapping[str, Extremes],
    images: Iterable[Image],
    tick: Tick = _no_tick,
) -> dict[str, Histogram]:
    """The second pass over calibration frames."""
    tensors = sorted(extremes)
    observer = HistogramObserver(extremes)
    content = with_samples(graph, tensors, _stride(graph, tensors))
    for values in runner.values(content, [tensor + SAMPLE for tensor in tensors], images, tick):
        observer.add({tensor: values[tensor + SAMPLE] for tensor in tensors})
    return observer.histograms()


def _stride(graph: Graph, tensors: Sequence[str]) -> int:
    stride = 2  # neighbours are much alike; every fourth pixel tells the same distribution
    while stride < MAX_STRIDE and _sample_bytes(graph, tensors, stride) > MAX_SAMPLE_BYTES:
        stride += 1
    return stride


def _sample_bytes(graph: Graph, tensors: Sequence[str], stride: int) -> int:
    total = 0
    for tensor in tensors:
        steps = sample_steps(graph, tensor, stride)
        total += 4 * prod(-(-size // steps.get(axis, 1)) for axis, size in enumerate(graph.shape(tensor)))
    return total
