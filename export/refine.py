"""Graphs that measure what quantizing one group by itself does to its output, computed beside the float one.

What a range costs is told by the error behind the group, not by the error of the activation: a weight may be blind to
it. The arithmetic is written out, so that no engine takes it for a quantized graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseg.calibration.ranges import QMAX
from vidseg.export.graph import Graph
from vidseg.export.groups import FusionGroup
from vidseg.export.observe import channel_axis_of
from vidseg.export.qdq import channel_axis, quantize_weight

ERROR, MEAN, POWER = "/error", "/mean", "/power"


def with_range_errors(graph: Graph, groups: Sequence[FusionGroup], candidates: Mapping[str, Sequence[float]]) -> bytes:
    """A copy that gives what each candidate range of an activation does to the outputs of the groups that read it.

    For each of the `groups` a scalar GROUP + POWER, the sum of squares of its output without bias, and for each input
    and candidate a scalar GROUP/INPUT/NUMBER + ERROR, the sum of squares of the difference.
    """
    writer = _Writer(graph)
    for group in groups:
        node = writer.node_of(group)
        writer.square_sum(writer.applied(node, list(node.input[:2]), group.name + "/plain"), group.name + POWER)
        for position, tensor in enumerate(group.inputs):
            for number, amax in enumerate(candidates[tensor]):
                error = writer.rounding_error(tensor, amax)
                inputs = [error if name == tensor else name for name in node.input[:2]]
                output = writer.applied(node, inputs, f"{group.name}/{position}/{number}")
                writer.square_sum(output, error_name(group, position, number))
    return writer.serialized()


def error_name(group: FusionGroup, position: int, number: int) -> str:
    """The output of `with_range_errors` for a group's input and a candidate."""
    return f"{group.name}/{position}/{number}{ERROR}"


def with_group_errors(
    graph: Graph,
    groups: Sequence[FusionGroup],
    amax: Mapping[str, float],
    weight_qmax: int,
    divisors: Mapping[str, NDArray[np.float32]] | None = None,
) -> bytes:
    """A copy that gives, for each group, by how much its output is less when it is quantized by itself.

    GROUP + MEAN is the mean by output channel, (channels_out,) float32; GROUP + ERROR the sum of squares, a scalar.

    Args:
        graph: the float graph.
        groups: of it.
        amax: of the activations that they read.
        weight_qmax: largest magnitude of a quantized weight.
        divisors: what equalization divided the outputs of groups by, (channels_out,) float32 by name: errors are
            summed in the units that they had before.
    """
    writer = _Writer(graph)
    for group in groups:
        node = writer.node_of(group)
        assert group.weight is not None
        weights = writer.graph.weight(group.weight).astype(np.float32)
        axis = channel_axis(node, weights.ndim, group.weight)
        quantized, scale = quantize_weight(weights, axis, weight_qmax)
        spread = scale.reshape([-1 if number == axis else 1 for number in range(weights.ndim)])
        rounded = writer.graph.set_weight(f"{group.name}/rounded", (quantized * spread).astype(np.float32))
        inputs = [rounded if name == group.weight else writer.rounded(name, amax[name]) for name in node.input[:2]]
        output = writer.applied(node, [*inputs, *node.input[2:]], group.name + "/alone")
        difference = writer.add("Sub", [group.name, output], group.name + "/difference")
        channel = channel_axis_of(graph, group.name)
        axes = [number for number in range(len(graph.shape(group.name))) if number != channel]
        writer.outputs.append(writer.add("ReduceMean", [difference], group.name + MEAN, axes=axes, keepdims=0))
        divisor = (divisors or {}).get(group.name)
        if divisor is not None:
            units = writer.graph.set_weight(f"{group.name}/units", divisor.reshape(-1, 1, 1).astype(np.float32))
            difference = writer.add("Mul", [difference, units], group.name + "/restored")
        writer.square_sum(difference, group.name + ERROR)
    return writer.serialized()


class _Writer:
    """Adds nodes behind those of a graph, and makes what they give its only outputs."""

    def __init__(self, graph: Graph) -> None:
        self.graph = Graph(graph.model.SerializeToString())
        self.outputs: list[str] = []
        self._added: list[Any] = []
        self._made: set[str] = set()
        self._bounds = [
            self.graph.set_weight(f"refine/{name}", np.array(value, np.float32))
            for name, value in (("low", -QMAX), ("high", QMAX))
        ]

    def node_of(self, group: FusionGroup) -> Any:
        node = self.graph.producer(group.name)
        assert node is not None
        return node

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        import onnx

        if output not in self._made:
            self._made.add(output)
            self._added.append(onnx.helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def applied(self, node: Any, inputs: list[str], output: str) -> str:
        """The group's node with other inputs."""
        import onnx

        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = output
        copy.input[:] = inputs
        copy.output[:] = [output]
        self._added.append(copy)
        return output

    def rounded(self, tensor: str, amax: float) -> str:
        """An activation, quantized and back."""
        scale = np.float32(max(amax / QMAX, float(np.finfo(np.float32).tiny)))  # its reciprocal is a number
        stem = f"{tensor}/{scale!r}"
        factor = self.graph.set_weight(f"{stem}/factor", np.array(1 / scale, np.float32))
        back = self.graph.set_weight(f"{stem}/back", scale)
        steps = self.add("Mul", [tensor, factor], f"{stem}/steps")
        clipped = self.add("Clip", [steps, *self._bounds], f"{stem}/clipped")
        return self.add("Mul", [self.add("Round", [clipped], f"{stem}/round"), back], f"{stem}/rounded")

    def rounding_error(self, tensor: str, amax: float) -> str:
        """By how much an activation changes when it is quantized and back."""
        return self.add("Sub", [self.rounded(tensor, amax), tensor], f"{tensor}/{np.float32(amax)!r}/error")

    def square_sum(self, tensor: str, output: str) -> None:
        self.outputs.append(self.add("ReduceSumSquare", [tensor], output, keepdims=0))

    def serialized(self) -> bytes:
        import onnx

        self.graph.replace_nodes([*self.graph.nodes, *self._added])
        values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in self.outputs]
        del self.graph.model.graph.output[:]
        self.graph.model.graph.output.extend(values)
        return self.graph.serialized()
