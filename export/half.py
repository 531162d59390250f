"""The FP16 form of a graph for strongly typed TensorRT, where types are the graph's: no builder flag lowers them.

Q/DQ pairs stay float32 with Casts around them: a scale below 6e-8 would be zero in float16, and the compiler fuses the
Casts either way (TensorRT-RTX 1.7 makes the same plan of both). Preprocessing, scores and classes stay float32, and so
does what float16 cannot hold: larger weights, and activations that were seen to come near its end.

A CPU does not show what float16 does by running such a graph, because it computes it in float32 and rounds little of
it; `rounded` is for that.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from vidseg.export.graph import Graph
from vidseg.export.lint import DQ, Q
from vidseg.export.model import PREFIX
from vidseg.export.runner import GraphRunner, Tick, extremes_of
from vidseg.runtime.frame import Image

MAX_HALF = 65504.0
"""The largest number of float16: IEEE 754-2008, binary16."""

MAX_SEEN = MAX_HALF / 2
"""Activations that were seen beyond this stay float32: other frames may give larger ones."""

_FLOAT, _HALF = 1, 10  # of TensorProto

_KEEPS = frozenset(
    {"Clip", "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Max", "MaxPool", "Min", "Neg", "Pad",
     "ReduceMax", "Relu", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze", "Where"}
)  # fmt: skip
"""What gives only numbers that it got: there is nothing to round."""


def half_tensors(content: bytes) -> list[str]:
    """What `in_half` computes in float16, if it is small enough."""
    graph = Graph(content)
    return [tensor for node in graph.nodes if _may_be_half(graph, node) for tensor in node.output if tensor]


def in_half(content: bytes, kept: Collection[str] = ()) -> bytes:
    """A graph whose network computes in float16, with the inputs and outputs that it had.

    Args:
        content: the graph.
        kept: activations that stay float32, and with them what makes or reads them.
    """
    graph = Graph(content)
    writer = _Writer(graph, frozenset(kept))
    nodes = []
    for node in graph.nodes:
        nodes += writer.converted(node)
    graph.replace_nodes(nodes)
    return graph.serialized()


def large_activations(
    runner: GraphRunner, content: bytes, images: Sequence[Image], tick: Tick = lambda: None
) -> list[str]:
    """What `in_half` would compute in float16, and comes near its end on some pictures.

    Args:
        runner: where the graph runs.
        content: the graph.
        images: of the input's size, (h, w, 3) uint8 BGR.
        tick: called after each.

    Raises:
        EngineError: the library refuses the graph, or fails.
    """
    tensors = half_tensors(content)
    extremes = extremes_of(runner, Graph(content), tensors, images, tick) if tensors else {}
    return [tensor for tensor, found in extremes.items() if found.amax > MAX_SEEN]


def rounded(content: bytes) -> bytes:
    """A graph of `in_half` for engines that have no float16: computes in float32, and rounds all that float16 rounds.

    Sums are rounded once, behind their operator, as by kernels that add up in float32.
    """
    graph = Graph(content)
    half = {name for node in graph.nodes for name in node.output if graph.element_type(name) == _HALF}
    for tensor in list(graph.model.graph.initializer):
        if tensor.data_type == _HALF:
            graph.set_weight(tensor.name, graph.weight(tensor.name).astype(np.float32))
    nodes: list[Any] = []
    for node in graph.nodes:
        nodes.append(node)
        if node.op_type == "Cast" and node.input[0] in half:
            node.op_type = "Identity"
            del node.attribute[:]
        elif node.op_type not in _KEEPS:
            for position, name in enumerate(node.output):
                nodes += _rounding(node, position) if name in half else []
    graph.replace_nodes(nodes)
    return graph.serialized()


def _rounding(node: Any, position: int) -> list[Any]:
    """What rounds an output of a node; a Cast to float16 does so itself."""
    import onnx

    name = node.output[position]
    exact, half = f"{name}/exact", f"{name}/rounded"
    back = onnx.helper.make_node("Cast", [half], [name], name=f"{name}/widened", to=_FLOAT)
    if node.op_type == "Cast":
        node.output[position] = half
        return [back]
    node.output[position] = exact
    return [onnx.helper.make_node("Cast", [exact], [half], name=half, to=_HALF), back]


class _Writer:
    """Converts node after node, in order; each tensor is cast once for all that need it."""

    def __init__(self, graph: Graph, kept: frozenset[str]) -> None:
        self._graph = graph
        self._kept = kept
        self._half: set[str] = set()  # tensors that are float16 now
        self._cast: dict[tuple[str, bool], str] = {}

    def converted(self, node: Any) -> list[Any]:
        """The node with its inputs in the type it computes in, behind the Casts that it needs."""
        in_half = _may_be_half(self._graph, node) and self._kept.isdisjoint([*node.input, *node.output])
        before: list[Any] = []
        for position, tensor in enumerate(node.input):
            if not tensor:
                continue
            fixed = position > 0 and node.op_type in {"Resize", "Upsample"}
            if in_half and not fixed:
                node.input[position] = self._as_half(tensor, before)
            elif tensor in self._half:
                node.input[position] = self._as(tensor, half=False, before=before)
        if in_half:
            self._half |= set(node.output)
        return [*before, node]

    def _as_half(self, tensor: str, before: list[Any]) -> str:
        if tensor in self._half or self._graph.element_type(tensor) != _FLOAT:
            return tensor
        if self._graph.is_weight(tensor):
            values = np.clip(self._graph.weight(tensor), -MAX_HALF, MAX_HALF)  # single numbers: bounds of a Clip
            return self._graph.set_weight(f"{tensor}/half", values.astype(np.float16))
        return self._as(tensor, half=True, before=before)

    def _as(self, tensor: str, *, half: bool, before: list[Any]) -> str:
        import onnx

        name = f"{tensor}/{'half' if half else 'single'}"
        if (tensor, half) not in self._cast:
            kind = onnx.TensorProto.FLOAT16 if half else onnx.TensorProto.FLOAT
            before.append(onnx.helper.make_node("Cast", [tensor], [name], name=name, to=kind))
            self._cast[tensor, half] = name
            if half:
                self._half.add(name)
        return self._cast[tensor, half]


def _may_be_half(graph: Graph, node: Any) -> bool:
    if node.name.startswith(PREFIX) or node.op_type in {Q, DQ, "Cast", "Shape"}:
        return False
    kinds = [graph.element_type(tensor) for tensor in node.output if len(graph.shape(tensor)) > 1]
    if (
        len(kinds) < len(node.output)
        or any(kind != _FLOAT for kind in kinds)
        or not set(graph.outputs).isdisjoint(node.output)
    ):
        return False
    weights = [graph.weight(name) for name in node.input if name and graph.is_weight(name)]
    return all(not values.ndim or not values.size or np.abs(values).max() <= MAX_HALF for values in weights)
