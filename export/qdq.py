"""Writing a quantized graph: QuantizeLinear and DequantizeLinear around what fusion groups read.

The rules are those of `vidseg.export.lint`, which checks every graph that is made here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseg.calibration.ranges import QMAX
from vidseg.export.graph import Graph, attribute_of, class_scores
from vidseg.export.groups import FusionGroup


@dataclass(frozen=True, slots=True, eq=False)
class Ranges:
    """What a quantized graph needs to know beside the float one.

    Attributes:
        amax: largest magnitude by activation; what lies beyond is clipped.
        nonnegative: activations that were never below zero.
        bias_correction: what is added to the output of a group through its bias, (channels_out,) float32, by name of
            the group; not where the bias is computed.
    """

    amax: Mapping[str, float]
    nonnegative: Collection[str] = frozenset()
    bias_correction: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class QuantizedForm:
    """How quantized values are written.

    Attributes:
        weight_qmax: largest magnitude of a quantized weight; 63 where a machine's 8-bit sums saturate.
        unsigned: activations as 0..255, with a zero point of 0 where they are never negative, else of 128.
        results: what groups give is quantized too, for engines whose kernels give 8-bit values only.
        stored: an activation that one node reads quantized is quantized for all that read it: only that is in memory.
    """

    weight_qmax: int = QMAX
    unsigned: bool = False
    results: bool = False
    stored: bool = False


MASTER = QuantizedForm()
"""What TensorRT takes: int8 only, zero points of 0."""


def quantize(graph: Graph, groups: Collection[FusionGroup], ranges: Ranges, form: QuantizedForm = MASTER) -> bytes:
    """A copy of a graph in which these groups are quantized.

    Args:
        graph: the float graph; stays as it is.
        groups: of `find_groups(graph)`; the others stay float.
        ranges: of every activation that the groups read.
        form: see `QuantizedForm`.

    Raises:
        KeyError: the range of an activation is missing.
    """
    quantized = Graph(graph.model.SerializeToString())
    writer = _Writer(quantized, ranges, form)
    by_name = {group.name: group for group in groups}
    for node in quantized.nodes:
        group = by_name.get(node.output[0]) if node.output else None
        if group is not None:
            writer.quantize_group(node, group)
    quantized.replace_nodes(writer.with_pairs())
    return quantized.serialized()


def with_bias_corrections(graph: Graph, groups: Collection[FusionGroup], ranges: Ranges) -> bytes:
    """A copy of a graph in which nothing is quantized, but these groups' biases are corrected as `quantize` does."""
    corrected = Graph(graph.model.SerializeToString())
    writer = _Writer(corrected, ranges, MASTER)
    for group in groups:
        writer.correct_bias(group)
    return corrected.serialized()


_ENDINGS = ("scale", "zero_point", "quantized", "dequantized", "bias")


class _Writer:
    """Adds Q/DQ pairs; each activation has one pair, whoever reads it."""

    def __init__(self, graph: Graph, ranges: Ranges, form: QuantizedForm) -> None:
        self._graph = graph
        self._ranges = ranges
        self._form = form
        self._scores = class_scores(graph)
        self._pairs: dict[str, list[Any]] = {}  # by the activation
        self._weights: dict[str, Any] = {}  # DequantizeLinear by name of its output
        self._slash = "/"  # before what is added to names, and more of them where names of the model end like that
        names = (
            *(tensor.name for tensor in graph.model.graph.initializer),
            *(name for node in graph.nodes for name in node.output),
        )
        while any(name.endswith(tuple(self._slash + ending for ending in _ENDINGS)) for name in names):
            self._slash += "/"

    def quantize_group(self, node: Any, group: FusionGroup) -> None:
        """Let a group's node, and the addition behind it, read dequantized values."""
        if group.weight is not None:
            weight = self._weight(node, group)
            node.input[:] = [weight if name == group.weight else name for name in node.input]
        for tensor in group.inputs:
            self._let_read(node, tensor)
        if group.skip is not None:
            self._let_read(self._graph.readers(group.name)[0], group.skip)
        if self._form.results and group.result not in self._scores:
            for reader in self._graph.readers(group.result):
                self._let_read(reader, group.result)
        self.correct_bias(group)

    def correct_bias(self, group: FusionGroup) -> None:
        """Add what rounding takes off a group's output to its bias."""
        correction = self._ranges.bias_correction.get(group.name)
        node = self._graph.producer(group.name)
        if correction is not None and node is not None:
            self._correct_bias(node, correction)

    def with_pairs(self) -> list[Any]:
        """All nodes: weights first, each pair right behind what makes its activation."""
        if self._form.stored:
            for tensor in list(self._pairs):
                for reader in self._graph.readers(tensor):
                    self._let_read(reader, tensor)
        nodes: list[Any] = list(self._weights.values())
        for value in self._graph.model.graph.input:
            nodes += self._pairs.get(value.name, [])
        for node in self._graph.nodes:
            nodes.append(node)
            for output in node.output:
                nodes += self._pairs.get(output, [])
        return nodes

    def _let_read(self, node: Any, tensor: str) -> None:
        if tensor in node.input:
            output = self._activation(tensor)
            node.input[:] = [output if name == tensor else name for name in node.input]

    def _activation(self, tensor: str) -> str:
        import onnx

        output = f"{tensor}{self._slash}dequantized"
        if tensor not in self._pairs:
            scale, zero_point = self._scale_of(tensor)
            parameters = [
                self._graph.set_weight(f"{tensor}{self._slash}scale", scale),
                self._graph.set_weight(f"{tensor}{self._slash}zero_point", zero_point),
            ]
            middle = f"{tensor}{self._slash}quantized"
            self._pairs[tensor] = [
                onnx.helper.make_node("QuantizeLinear", [tensor, *parameters], [middle], name=middle),
                onnx.helper.make_node("DequantizeLinear", [middle, *parameters], [output], name=output),
            ]
        return output

    def _scale_of(self, tensor: str) -> tuple[NDArray[Any], NDArray[Any]]:
        """Scale and zero point, both of no axes: with one axis, TensorRT-RTX computes in float (seen in 1.7)."""
        amax = max(self._ranges.amax[tensor], float(np.finfo(np.float32).tiny) * 255)
        if not self._form.unsigned:
            return np.array(amax / QMAX, np.float32), np.array(0, np.int8)
        if tensor in self._ranges.nonnegative:
            return np.array(amax / 255, np.float32), np.array(0, np.uint8)
        return np.array(amax / QMAX, np.float32), np.array(128, np.uint8)

    def _weight(self, node: Any, group: FusionGroup) -> str:
        import onnx

        assert group.weight is not None
        values = self._graph.weight(group.weight).astype(np.float32)
        axis = channel_axis(node, values.ndim, group.weight)
        quantized, scale = quantize_weight(values, axis, self._form.weight_qmax)
        output = f"{group.weight}{self._slash}dequantized" + ("" if axis is None else f"/{axis}")
        if output not in self._weights:
            parameters = [
                self._graph.set_weight(f"{output}/int8", quantized),
                self._graph.set_weight(f"{output}/scale", scale),
                self._graph.set_weight(f"{output}/zero_point", np.zeros(scale.shape, np.int8)),
            ]
            attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
            self._weights[output] = onnx.helper.make_node(
                "DequantizeLinear", parameters, [output], name=output, **attributes
            )
        return output

    def _correct_bias(self, node: Any, correction: NDArray[np.float32]) -> None:
        name = f"{node.output[0]}{self._slash}bias"
        beta = attribute_of(node, "beta", 1.0)  # Gemm weighs its bias
        has_bias = len(node.input) > 2 and node.input[2]
        if not beta or (has_bias and not self._graph.is_weight(node.input[2])):
            return
        correction = np.asarray(correction / beta, np.float32)
        if has_bias:
            correction = self._graph.weight(node.input[2]).astype(np.float32) + correction
            node.input[2] = self._graph.set_weight(name, correction)
        else:
            node.input[:] = [*node.input[:2], self._graph.set_weight(name, correction)]


def channel_axis(node: Any, dimensions: int, weight: str) -> int | None:
    """The axis of a weight's output channels; None where engines take one scale for all: a grouped ConvTranspose."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1 if attribute_of(node, "group", 1) == 1 else None
    if node.op_type == "Gemm":
        return 0 if attribute_of(node, "transB", 0) else 1
    return dimensions - 2 if weight == node.input[0] else dimensions - 1


def quantize_weight(
    values: NDArray[np.float32], axis: int | None, qmax: int = QMAX
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric: int8 values of the weight's shape, and the scale, one a channel along `axis` or a single one.

    The error is at most half a scale. A channel of zeros, or nearly, has a scale of 1.
    """
    others = tuple(number for number in range(values.ndim) if number != axis) if axis is not None else None
    amax = np.abs(values).max(axis=others)
    scale = np.where(amax > qmax * np.finfo(np.float32).tiny, amax / qmax, 1).astype(np.float32)
    shape = [-1 if number == axis else 1 for number in range(values.ndim)]
    spread = scale.reshape(shape) if axis is not None else scale
    return np.clip(np.rint(values / spread), -qmax, qmax).astype(np.int8), scale
