"""Fusion groups: the parts of a graph that are quantized together or not at all.

A group is one convolution, or one product with a weight, with what engines fuse behind it: bias, activation, and the
addition of a skip branch. What it reads is quantized, what it gives is not (the next group does that), so a group can
go back to float alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

from vidseg.export.graph import Graph, attribute_of

OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")

MIN_CHANNELS = 16
"""Convolutions with fewer channels in or out fill no vector of an INT8 kernel: float unless measured to gain."""


@dataclass(frozen=True, slots=True)
class FusionGroup:
    """One convolution or product, and what belongs to it.

    Attributes:
        name: of the tensor that the node gives; groups are told apart by it.
        operator: of the node.
        inputs: the activations that it reads, quantized per tensor.
        weight: the weight's name, quantized per output channel; None for a product of two activations.
        skip: the branch that an addition right behind adds, quantized too; None where there is none.
        result: the tensor that leaves the group where its output is written: behind a Relu or Clip, else `name`.
        macs: multiply-adds of one picture.
        channels_in, channels_out: of the node.
        depthwise: True where each channel is convolved by itself.
        positions: pixels of the output.
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    weight: str | None
    skip: str | None
    result: str
    macs: int
    channels_in: int
    channels_out: int
    depthwise: bool
    positions: int

    @property
    def is_narrow(self) -> bool:
        """True with fewer channels than fill a vector, in or out; a depthwise one fills it with its channels."""
        return min(self.channels_in, self.channels_out) < MIN_CHANNELS


def find_groups(graph: Graph) -> tuple[FusionGroup, ...]:
    """All groups of a graph, in topological order; products without a weight only where both sides are activations.

    Products with a vector are none, nor what has a size that is not known.
    """
    found = (_group(graph, node) for node in graph.nodes if node.op_type in OPERATORS)
    return tuple(group for group in found if group is not None)


def total_macs(groups: Iterable[FusionGroup]) -> int:
    """Multiply-adds of one picture in all groups."""
    return sum(group.macs for group in groups)


def _group(graph: Graph, node: Any) -> FusionGroup | None:
    left, right = node.input[0], node.input[1]
    swapped = node.op_type == "MatMul" and graph.is_weight(left)
    data, other = (right, left) if swapped else (left, right)
    if graph.is_weight(data):
        return None
    weight = other if graph.is_weight(other) else None
    shape, output = graph.shape(other), graph.shape(node.output[0])
    if min(len(shape), len(graph.shape(data))) < 2 or not output or not all(output):  # vectors have no channels
        return None
    if node.op_type in {"Conv", "ConvTranspose"} and len(shape) != 4:  # not of pictures
        return None
    channels_in, channels_out, macs, positions = _size(node, shape, output, graph.shape(data), swapped=swapped)
    group = attribute_of(node, "group", 1)
    return FusionGroup(
        name=node.output[0],
        operator=node.op_type,
        inputs=(data,) if weight else (data, other),
        weight=weight,
        skip=_skip_of(graph, node.output[0]),
        result=_result_of(graph, node.output[0]),
        macs=macs,
        channels_in=channels_in,
        channels_out=channels_out,
        depthwise=node.op_type in {"Conv", "ConvTranspose"} and group > 1 and group == channels_in,
        positions=positions,
    )


def _size(
    node: Any, weight: list[int], output: list[int], data: list[int], *, swapped: bool
) -> tuple[int, int, int, int]:
    """Channels in and out, multiply-adds and positions."""
    if node.op_type == "Conv":  # (out, in / group, ...)
        positions = prod(output[2:])
        return weight[1] * attribute_of(node, "group", 1), weight[0], prod(weight) * positions, positions
    if node.op_type == "ConvTranspose":  # (in, out / group, ...): each pixel of the input meets the whole kernel
        return weight[0], output[1], prod(weight) * prod(data[2:]), prod(output[2:])
    if node.op_type == "Gemm":
        inner = weight[1] if attribute_of(node, "transB", 0) else weight[0]
        return inner, output[-1], prod(output) * inner, prod(output[:-1])
    if swapped:
        return weight[-1], output[-2], prod(output) * weight[-1], prod(output) // output[-2]
    return weight[-2], output[-1], prod(output) * weight[-2], prod(output[:-1])


def _result_of(graph: Graph, tensor: str) -> str:
    reader = graph.only_reader(tensor)
    return str(reader.output[0]) if reader is not None and reader.op_type in {"Relu", "Clip"} else tensor


def _skip_of(graph: Graph, tensor: str) -> str | None:
    """The other operand of an addition that alone reads a group's output, where it is an activation of that shape.

    Where both operands come from groups that could fuse the addition, the one computed last does.
    """
    reader = graph.only_reader(tensor)
    if reader is None or reader.op_type != "Add":
        return None
    other = reader.input[1] if reader.input[0] == tensor else reader.input[0]
    if other == tensor or graph.is_weight(other) or graph.shape(other) != graph.shape(tensor):
        return None
    rival = graph.producer(other)
    if rival is not None and rival.op_type in OPERATORS and graph.only_reader(other) is not None:
        order = [node.output[0] for node in graph.nodes]
        if order.index(rival.output[0]) > order.index(tensor):
            return None
    return str(other)
