"""Cross-layer equalization: like ranges for the channels of an activation, and the same results.

An activation has one scale for all channels, so that a channel with a small range gets few steps. Where convolutions
alone read it, each channel can be divided by a factor in the weights before it and multiplied in the weights behind
(Nagel et al., Data-free quantization through weight equalization and bias correction, 2019); here the ranges are
measured ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseg.calibration.observers import Extremes
from vidseg.export.graph import Graph, attribute_of

_HOMOGENEOUS = ("Relu", "PRelu", "LeakyRelu")
"""Activations f with f(s x) = s f(x) for s > 0."""

MAX_FACTOR = 64.0
"""Between the largest and the smallest: a channel that is nearly dead would get weights of any size otherwise."""


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """An activation that can be equalized.

    Attributes:
        tensor: the activation.
        before: name of the output of the convolution that makes it.
        behind: names of the outputs of the convolutions that read it.
        depthwise: True where all of those are: their weights have a scale a channel, so the factor costs nothing.
    """

    tensor: str
    before: str
    behind: tuple[str, ...]
    depthwise: bool


def find_sites(graph: Graph) -> list[Site]:
    """All activations of a graph that can be equalized, in topological order."""
    sites = []
    for node in graph.nodes:
        if node.op_type != "Conv" or not _owns_weights(graph, node):
            continue
        tensor = str(node.output[0])
        activation = graph.only_reader(tensor)
        if activation is not None and activation.op_type in _HOMOGENEOUS and activation.input[0] == tensor:
            tensor = str(activation.output[0])
        readers = graph.readers(tensor)
        if not readers or tensor in graph.outputs or not all(_takes(graph, reader, tensor) for reader in readers):
            continue
        depthwise = all(graph.shape(reader.input[1])[1] == 1 for reader in readers)
        sites.append(Site(tensor, node.output[0], tuple(reader.output[0] for reader in readers), depthwise))
    return sites


def factors_for(graph: Graph, site: Site, extremes: Extremes) -> NDArray[np.float32]:
    """What each channel of a site is divided by, (channels,) float32 above 0.

    Depthwise convolutions behind: the channel's own range, as a share of the largest. Others: the square root of the
    activation's range over that of the weights that read the channel, which shares the difference between both.
    """
    ranges = np.maximum(np.abs(extremes.low), np.abs(extremes.high)).astype(np.float64)
    wanted = ranges
    if not site.depthwise:
        weights = np.max([_ranges_by_input(graph, name) for name in site.behind], axis=0)
        wanted = np.sqrt(ranges / np.maximum(weights, 1e-12))
    top = wanted.max()
    if top <= 0:
        return np.ones(len(ranges), np.float32)
    factors = np.clip(wanted / top, 1 / MAX_FACTOR, 1)
    return np.where(ranges > 0, factors, 1).astype(np.float32)


def equalized(graph: Graph, factors: Mapping[str, Sequence[float] | NDArray[np.float32]]) -> Graph:
    """A copy of a graph in which activations are divided by factors, by their names, and all outputs are the same."""
    copy = Graph(graph.model.SerializeToString())
    for site in find_sites(graph):
        if site.tensor not in factors:
            continue
        divisor = np.asarray(factors[site.tensor], np.float32)
        before = copy.producer(site.before)
        assert before is not None
        weight = copy.weight(before.input[1])
        copy.set_weight(before.input[1], (weight / divisor.reshape(-1, 1, 1, 1)).astype(np.float32))
        if len(before.input) > 2 and before.input[2]:
            copy.set_weight(before.input[2], (copy.weight(before.input[2]) / divisor).astype(np.float32))
        for name in site.behind:
            node = copy.producer(name)
            assert node is not None
            copy.set_weight(node.input[1], _scaled_inputs(copy.weight(node.input[1]), divisor, _groups(node)))
    return copy


def _owns_weights(graph: Graph, node: Any) -> bool:
    """True where a convolution of pictures has constant weights that no other node reads."""
    names = [name for name in node.input[1:] if name]
    constant = all(graph.is_weight(name) and len(graph.readers(name)) == 1 for name in names)
    return constant and len(graph.shape(node.input[1])) == 4


def _takes(graph: Graph, reader: Any, tensor: str) -> bool:
    return bool(reader.op_type == "Conv" and reader.input[0] == tensor and _owns_weights(graph, reader))


def _groups(node: Any) -> int:
    return int(attribute_of(node, "group", 1))


def _ranges_by_input(graph: Graph, name: str) -> NDArray[np.float64]:
    """The largest weight that reads each input channel of a convolution, (channels,) float64."""
    node = graph.producer(name)
    assert node is not None
    blocks = _blocks(graph.weight(node.input[1]), _groups(node))
    return np.asarray(np.abs(blocks).max(axis=(1, 3, 4)).reshape(-1), np.float64)


def _scaled_inputs(weight: NDArray[Any], factor: NDArray[np.float32], groups: int) -> NDArray[np.float32]:
    blocks = _blocks(weight, groups) * factor.reshape(groups, 1, -1, 1, 1)
    return blocks.reshape(weight.shape).astype(np.float32)


def _blocks(weight: NDArray[Any], groups: int) -> NDArray[Any]:
    """(out, in / groups, h, w) as (groups, out / groups, in / groups, h, w)."""
    return weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
