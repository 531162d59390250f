"""From frames to ranges and corrections: what a quantized graph needs to know beside the float one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vidseg.calibration.frames import CalibrationFrames
from vidseg.calibration.observers import Extremes
from vidseg.calibration.ranges import METHODS, candidate_ranges
from vidseg.calibration.table import FORMAT, CalibrationTable, TensorRange
from vidseg.export.equalize import equalized, factors_for, find_sites
from vidseg.export.frames import Indexed
from vidseg.export.graph import Graph
from vidseg.export.groups import FusionGroup
from vidseg.export.lowering import CPU_WEIGHT_QMAX
from vidseg.export.qdq import Ranges
from vidseg.export.refine import ERROR, MEAN, POWER, error_name, with_group_errors, with_range_errors
from vidseg.export.runner import GraphRunner, Tick, extremes_of, histograms_of, watched_tensors
from vidseg.runtime.bundle import sha256_of
from vidseg.runtime.frame import Image

RANGE_FRAMES = 6
"""Frames on which the methods are compared; more changed no choice on CGNet and ESPNetv2."""

BIAS_FRAMES = 16
"""Frames that bias corrections are measured on; as many others decide whether each one helps."""


def calibrate(
    runner: GraphRunner, graph: Graph, groups: Sequence[FusionGroup], frames: CalibrationFrames, tick: Tick
) -> CalibrationTable:
    """Ranges of all activations that the groups read or give, each by the method with the least error behind it.

    Args:
        runner: where graphs run.
        graph: the float graph.
        groups: of it, those that may be quantized.
        frames: of the real scene.
        tick: called after each frame of each pass.
    """
    images = frames.calibration
    model_sha256 = sha256_of(graph.serialized())
    tensors = watched_tensors(groups)
    held_out = _numbers(images, min(RANGE_FRAMES, len(images) // 2))
    others = (images[number] for number in range(len(images)) if number not in held_out)
    rest = [images[number] for number in held_out]
    extremes = extremes_of(runner, graph, tensors, others, tick)
    factors = _helpful_factors(runner, graph, groups, extremes, rest)
    if factors:
        graph = equalized(graph, factors)
        extremes = extremes_of(runner, graph, tensors, images, tick)
    else:
        unseen = extremes_of(runner, graph, tensors, rest, tick)
        extremes = {tensor: found.merged(unseen[tensor]) for tensor, found in extremes.items()} if rest else extremes
    histograms = histograms_of(runner, graph, extremes, images, tick)
    candidates = {tensor: candidate_ranges(histogram) for tensor, histogram in histograms.items()}
    methods = _best_methods(graph, groups, candidates, some_of(images, RANGE_FRAMES), tick)
    return CalibrationTable(
        format=FORMAT,
        model_sha256=model_sha256,
        frames_sha256=frames.calibration_sha256,
        frames=len(images),
        equalization={tensor: tuple(found.tolist()) for tensor, found in factors.items()},
        tensors={
            tensor: TensorRange(
                amax={method: float(np.float32(value)) for method, value in candidates[tensor].items()},
                method=methods.get(tensor, "mse"),
                signed=extremes[tensor].signed,
            )
            for tensor in tensors
        },
    )


def _helpful_factors(
    runner: GraphRunner,
    graph: Graph,
    groups: Sequence[FusionGroup],
    extremes: Mapping[str, Extremes],
    held_out: Sequence[Image],
) -> dict[str, NDArray[np.float32]]:
    """Factors of the sites where equalizing lowers the error behind them, on frames that they were not made from.

    Sites change each other's errors: those that help are measured again without the others, until all of them do.
    """
    by_name = {group.name: group for group in groups}
    sites = [site for site in find_sites(graph) if site.tensor in extremes and set(site.behind) <= set(by_name)]
    if not held_out:
        return {}
    factors = {site.tensor: factors_for(graph, site, extremes[site.tensor]) for site in sites}
    behind = [by_name[name] for site in sites for name in site.behind]

    def errors_with(chosen: Mapping[str, NDArray[np.float32]]) -> dict[str, float]:
        """Behind each site, with these equalized."""
        amax = {tensor: _amax_of(found, chosen.get(tensor)) for tensor, found in extremes.items()}
        divisors = {site.before: chosen[site.tensor] for site in sites if site.tensor in chosen}
        content = with_group_errors(equalized(graph, chosen), behind, amax, CPU_WEIGHT_QMAX, divisors)
        outputs = [group.name + ERROR for group in behind]
        total = _sums(runner.values(content, outputs, held_out), outputs)
        return {site.tensor: sum(float(total[name + ERROR]) for name in site.behind) for site in sites}

    before = errors_with({}) if sites else {}
    while factors:
        after = errors_with(factors)
        helpful = {tensor: factor for tensor, factor in factors.items() if after[tensor] < before[tensor]}
        if len(helpful) == len(factors):
            break
        factors = helpful
    return factors


def _amax_of(extremes: Extremes, divisor: NDArray[np.float32] | None) -> float:
    magnitudes = np.maximum(np.abs(extremes.low), np.abs(extremes.high))
    return float((magnitudes if divisor is None else magnitudes / divisor).max())


def some_of(images: Indexed[Image], count: int) -> list[Image]:
    """At most `count` of the images, the same whatever their order."""
    return [images[number] for number in _numbers(images, count)]


def _numbers(images: Indexed[Image], count: int) -> list[int]:
    """Of at most `count` of the images, in the order of their hashes."""
    hashes = sorted((sha256_of(images[number].tobytes()), number) for number in range(len(images)))
    return [number for _, number in hashes[:count]]


def ticks_of(frames: int) -> int:
    """How often `calibrate` calls its tick, at most."""
    return 3 * frames + min(frames, RANGE_FRAMES)


def ranges_of(table: CalibrationTable, corrections: Mapping[str, NDArray[np.float32]] | None = None) -> Ranges:
    """A table as `quantize` takes it."""
    nonnegative = frozenset(name for name, tensor in table.tensors.items() if not tensor.signed)
    return Ranges(table.amax(), nonnegative, corrections or {})


def _best_methods(
    graph: Graph,
    groups: Sequence[FusionGroup],
    candidates: Mapping[str, Mapping[str, float]],
    images: Sequence[Image],
    tick: Tick,
) -> dict[str, str]:
    """By activation that groups read: the method whose error behind all of them is least, as a share of their power."""
    values = {tensor: [ranges[method] for method in METHODS] for tensor, ranges in candidates.items()}
    outputs = [group.name + POWER for group in groups]
    outputs += [
        error_name(group, position, number)
        for group in groups
        for position in range(len(group.inputs))
        for number in range(len(METHODS))
    ]
    # ONNX Runtime opens graphs of thousands of nodes five times faster, and here a few frames are run only.
    bench = GraphRunner("ranges", "onnxruntime")
    content = with_range_errors(graph, groups, values)
    totals = _sums(bench.values(content, outputs, images, tick), outputs)
    errors: dict[str, NDArray[np.float64]] = {}
    for group in groups:
        power = max(float(totals[group.name + POWER]), 1e-30)
        for position, tensor in enumerate(group.inputs):
            behind = np.array([totals[error_name(group, position, number)] for number in range(len(METHODS))], float)
            errors[tensor] = errors.get(tensor, np.zeros(len(METHODS))) + behind / power
    return {tensor: METHODS[int(np.argmin(found))] for tensor, found in errors.items()}


def _sums(
    frames: Iterable[Mapping[str, NDArray[np.float32]]], outputs: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    totals: dict[str, NDArray[np.float64]] = {}
    for values in frames:
        for name in outputs:
            totals[name] = totals.get(name, np.zeros(())) + values[name].astype(np.float64)
    return totals


def bias_corrections(
    runner: GraphRunner,
    graph: Graph,
    groups: Sequence[FusionGroup],
    amax: Mapping[str, float],
    images: Sequence[Image],
    *,
    weight_qmax: int,
) -> dict[str, NDArray[np.float32]]:
    """What quantizing each group takes off its output on average, by channel, where giving it back helps.

    Nagel et al., Data-free quantization through weight equalization and bias correction, 2019, with the mean measured
    on every other frame, and kept where it lowers the squared error on the frames between.
    """
    groups = [group for group in groups if group.weight is not None and group.operator != "MatMul"]
    if len(images) < 2 or not groups:
        return {}
    outputs = [group.name + MEAN for group in groups]
    content = with_group_errors(graph, groups, amax, weight_qmax)
    means = list(runner.values(content, outputs, images))
    measured = _sums(means[::2], outputs)
    held_out = _sums(means[1::2], outputs)
    corrections = {}
    for group in groups:
        correction = measured[group.name + MEAN] / len(means[::2])
        other = held_out[group.name + MEAN] / len(means[1::2])
        change = correction * correction - 2 * correction * other  # E[(e - b)^2] - E[e^2], with E[e] of other frames
        if float(change.sum()) < 0:
            corrections[group.name] = correction.astype(np.float32)
    return corrections
