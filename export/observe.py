"""Graphs that give activations away: with their extremes by channel, with a sample of their values, or whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vidseg.export.graph import Graph

LOW, HIGH, SAMPLE = "/low", "/high", "/sample"


def with_extremes(graph: Graph, tensors: Sequence[str], keep: Sequence[str] = ()) -> bytes:
    """A copy that gives, for each activation, its smallest and largest value by channel: (channels,) float32.

    Outputs of the graph that are named in `keep` stay.

    Channels are the second axis of pictures, (n, c, h, w), and the last one of everything else. The outputs are named
    as the activation with LOW and HIGH behind.
    """
    outputs: list[str] = []
    copy = _copy(graph)
    nodes = copy.nodes
    for tensor in tensors:
        axes = _others(graph, tensor)
        for operator, ending in (("ReduceMin", LOW), ("ReduceMax", HIGH)):
            nodes.append(_node(operator, [tensor], tensor + ending, axes=axes, keepdims=0))
            outputs.append(tensor + ending)
    return _with_outputs(copy, nodes, outputs, keep)


def with_outputs(graph: Graph, tensors: Sequence[str]) -> bytes:
    """A copy that gives these float32 activations whole beside its own outputs."""
    return _with_outputs(_copy(graph), graph.nodes, tensors, graph.outputs)


def with_samples(graph: Graph, tensors: Sequence[str], stride: int) -> bytes:
    """A copy that gives every `stride`-th row and column of each activation that is a picture, and the others whole."""
    copy = _copy(graph)
    nodes, outputs = copy.nodes, []
    strides = [
        copy.set_weight(f"observe/{name}", np.array(value, np.int64))
        for name, value in (("starts", [0, 0]), ("ends", [2**31 - 1] * 2), ("axes", [2, 3]), ("steps", [stride] * 2))
    ]
    for tensor in tensors:
        is_picture = stride > 1 and len(graph.shape(tensor)) == 4
        nodes.append(
            _node("Slice" if is_picture else "Identity", [tensor, *(strides if is_picture else [])], tensor + SAMPLE)
        )
        outputs.append(tensor + SAMPLE)
    return _with_outputs(copy, nodes, outputs)


def _others(graph: Graph, tensor: str) -> list[int]:
    dimensions = len(graph.shape(tensor))
    channel = 1 if dimensions == 4 else dimensions - 1
    return [axis for axis in range(dimensions) if axis != channel]


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
