"""Folding batch normalization into the convolutions before it, through a concatenation where there is one.

onnxslim folds those right behind a convolution. CGNet and its like put one behind the concatenation of two: there each
convolution takes its own channels of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vidseg.export.graph import Graph, attribute_of

if TYPE_CHECKING:
    import onnx


def without_norms(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every BatchNormalization that can be is folded; the same object where there is none.

    Args:
        model: of fixed shapes.
    """
    graph = Graph(model.SerializeToString())
    gone: dict[str, str] = {}
    for node in graph.nodes:
        if node.op_type == "BatchNormalization" and (before := _convolutions(graph, node)) is not None:
            _fold(graph, node, before)
            gone[node.output[0]] = node.input[0]
    if not gone:
        return model
    nodes = []
    for node in graph.nodes:
        if node.op_type == "BatchNormalization" and node.output[0] in gone:
            continue
        node.input[:] = [gone.get(name, name) for name in node.input]
        nodes.append(node)
    graph.replace_nodes(nodes)
    return graph.model


def _convolutions(graph: Graph, norm: Any) -> list[Any] | None:
    """The convolutions whose outputs alone, side by side, are normalized; None where something else is."""
    tensor = str(norm.input[0])
    if graph.only_reader(tensor) is None or not all(graph.is_weight(name) for name in norm.input[1:]):
        return None
    if norm.output[0] in graph.outputs:
        return None
    source = graph.producer(tensor)
    if source is None:
        return None
    tensors = [tensor]
    if source.op_type == "Concat" and attribute_of(source, "axis") in {1, 1 - len(graph.shape(tensor))}:
        tensors = list(source.input)
    found = [graph.producer(name) if graph.only_reader(name) is not None else None for name in tensors]
    convolutions = [node for node in found if node is not None and node.op_type == "Conv" and _is_own(graph, node)]
    return convolutions if len(convolutions) == len(tensors) and len(set(tensors)) == len(tensors) else None


def _is_own(graph: Graph, node: Any) -> bool:
    names = [name for name in node.input[1:] if name]
    return all(graph.is_weight(name) and len(graph.readers(name)) == 1 for name in names)


def _fold(graph: Graph, norm: Any, convolutions: list[Any]) -> None:
    """y = (x - mean) / sqrt(variance + epsilon) * scale + bias: Ioffe and Szegedy, Batch normalization, 2015."""
    scale, bias, mean, variance = (graph.weight(name).astype(np.float64) for name in norm.input[1:5])
    factor = scale / np.sqrt(variance + attribute_of(norm, "epsilon", 1e-5))
    shift = bias - mean * factor
    start = 0
    for node in convolutions:
        weight = graph.weight(node.input[1]).astype(np.float64)
        part = slice(start, start + len(weight))
        start += len(weight)
        _set(graph, node, weight, factor[part], shift[part])


def _set(
    graph: Graph, node: Any, weight: NDArray[Any], factor: NDArray[np.float64], shift: NDArray[np.float64]
) -> None:
    shape = (-1, *[1] * (weight.ndim - 1))
    graph.set_weight(node.input[1], (weight * factor.reshape(shape)).astype(np.float32))
    if len(node.input) > 2 and node.input[2]:
        shift = shift + graph.weight(node.input[2]).astype(np.float64) * factor
        graph.set_weight(node.input[2], shift.astype(np.float32))
    else:
        name = graph.set_weight(f"{node.output[0]}/norm", shift.astype(np.float32))
        node.input[:] = [*node.input[:2], name]
