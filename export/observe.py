"""Graphs that give activations away: with their extremes by channel, with a sample of their values, or whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vidseg.export.graph import Graph

LOW, HIGH, SAMPLE = "/low", "/high", "/sample"

ELEMENTWISE = {
    "Add", "Clip", "Div", "Elu", "Erf", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Mul", "PRelu", "Relu",
    "Sigmoid", "Sub", "Tanh",
}  # fmt: skip
"""Operators whose output has the layout of its inputs."""


def with_extremes(graph: Graph, tensors: Sequence[str], keep: Sequence[str] = ()) -> bytes:
    """A copy that gives, for each activation, its smallest and largest value by channel: (channels,) float32.

    Outputs of the graph that are named in `keep` stay.

    For channels see `channel_axis_of`. The outputs are named as the activation with LOW and HIGH behind.
    """
    outputs: list[str] = []
    copy = _copy(graph)
    nodes = copy.nodes
    for tensor in tensors:
        channel = channel_axis_of(graph, tensor)
        axes = [axis for axis in range(len(graph.shape(tensor))) if axis != channel]
        for operator, ending in (("ReduceMin", LOW), ("ReduceMax", HIGH)):
            nodes.append(_node(operator, [tensor], tensor + ending, axes=axes, keepdims=0))
            outputs.append(tensor + ending)
    return _with_outputs(copy, nodes, outputs, keep)


def with_outputs(graph: Graph, tensors: Sequence[str]) -> bytes:
    """A copy that gives these float32 activations whole beside its own outputs."""
    return _with_outputs(_copy(graph), graph.nodes, tensors, graph.outputs)


def with_samples(graph: Graph, tensors: Sequence[str], stride: int) -> bytes:
    """A copy that gives a sample of each activation's positions, with all of their channels; see `sample_steps`."""
    copy = _copy(graph)
    nodes, outputs = copy.nodes, []
    for tensor in tensors:
        steps = sample_steps(graph, tensor, stride)
        inputs = [tensor]
        if steps:
            bounds = ([0] * len(steps), [2**31 - 1] * len(steps), list(steps), list(steps.values()))
            inputs += [copy.set_weight(f"observe/{values}", np.array(values, np.int64)) for values in bounds]
        nodes.append(_node("Slice" if steps else "Identity", inputs, tensor + SAMPLE))
        outputs.append(tensor + SAMPLE)
    return _with_outputs(copy, nodes, outputs)


def sample_steps(graph: Graph, tensor: str, stride: int) -> dict[int, int]:
    """By axis: of how many positions along it one is looked at, where that is not each of them.

    Of pictures every `stride`-th row and column. Tokens, (n, tokens, c), and those of heads of attention, (n, heads,
    tokens, c), may be few: they are thinned by a quarter of what pictures are. Keys may be there transposed; what makes
    heads large is the number of tokens, so that is taken for the longer axis.
    """
    shape = graph.shape(tensor)
    channel, last = channel_axis_of(graph, tensor), len(shape) - 1
    if _has_heads(graph, tensor):
        steps = {last if shape[last] > shape[last - 1] else last - 1: stride**2 // 4}
    elif len(shape) >= 4:
        steps = {axis: stride for axis in range(1, len(shape)) if axis != channel}
    else:
        steps = {last - 1 if channel == last else last: stride**2 // 4}
    return {axis: step for axis, step in steps.items() if step > 1}


def channel_axis_of(graph: Graph, tensor: str) -> int:
    """The axis of an activation's channels: 1 where a convolution is next to it, the last one where a product is.

    A product with a weight on its left has them in the last but one. What is computed element by element keeps its
    layout, so the nearest of them decides. Where there is none, channels are the second axis of what has four, (n, c,
    h, w), and the last one of everything else.
    """
    dimensions = len(graph.shape(tensor))
    near, seen = [tensor], {tensor}
    for name in near:  # grows on the way
        producer = graph.producer(name)
        nodes = [*([producer] if producer is not None else []), *graph.readers(name)]
        for node in nodes:
            if node.op_type in {"Conv", "ConvTranspose"}:
                return 1
            if node.op_type in {"MatMul", "Gemm"}:
                return dimensions - (2 if graph.is_weight(node.input[0]) else 1)
        for node in nodes:
            if node.op_type in ELEMENTWISE:
                alike = [other for other in (*node.input, *node.output) if graph.shape(other) == graph.shape(tensor)]
                near += [other for other in alike if other not in seen]
                seen.update(alike)
    return 1 if dimensions == 4 else dimensions - 1


def _has_heads(graph: Graph, tensor: str) -> bool:
    """True for what a product of two activations reads or makes: its second axis is that of the heads."""
    nodes = [graph.producer(tensor), *graph.readers(tensor)]
    products = [node for node in nodes if node is not None and node.op_type == "MatMul"]
    return any(not any(graph.is_weight(name) for name in node.input) for node in products)


def _copy(graph: Graph) -> Graph:
    return Graph(graph.model.SerializeToString())


def _node(operator: str, inputs: list[str], output: str, **attributes: Any) -> Any:
    import onnx

    return onnx.helper.make_node(operator, inputs, [output], name=output, **attributes)


def _with_outputs(graph: Graph, nodes: Sequence[Any], outputs: Sequence[str], keep: Sequence[str] = ()) -> bytes:
    import onnx

    graph.replace_nodes(nodes)
    values = [value for value in graph.model.graph.output if value.name in keep]
    values += [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs if name not in keep
    ]
    del graph.model.graph.output[:]
    graph.model.graph.output.extend(values)
    return graph.serialized()
