"""The FP16 form of a graph for strongly typed TensorRT, where types are the graph's: no builder flag lowers them.

Q/DQ pairs stay float32 with Casts around them: a scale below 6e-8 would be zero in float16, and the compiler fuses the
Casts either way (TensorRT-RTX 1.7 makes the same plan of both). Preprocessing, scores and classes stay float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vidseg.export.graph import Graph
from vidseg.export.lint import DQ, Q
from vidseg.export.model import PREFIX
from vidseg.runtime.errors import ModelError

MAX_HALF = 65504.0

_FLOAT = 1  # TensorProto.FLOAT


def in_half(content: bytes) -> bytes:
    """A graph whose network computes in float16, with the inputs and outputs that it had.

    Raises:
        ModelError: a weight does not fit into float16.
    """
    graph = Graph(content)
    writer = _Writer(graph)
    nodes = []
    for node in graph.nodes:
        nodes += writer.converted(node)
    graph.replace_nodes(nodes)
    return graph.serialized()


class _Writer:
    """Converts node after node, in order; each tensor is cast once for all that need it."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._half: set[str] = set()  # tensors that are float16 now
        self._cast: dict[tuple[str, bool], str] = {}

    def converted(self, node: Any) -> list[Any]:
        """The node with its inputs in the type it computes in, behind the Casts that it needs."""
        in_half = self._computes_in_half(node)
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

    def _computes_in_half(self, node: Any) -> bool:
        if node.name.startswith(PREFIX) or node.op_type in {Q, DQ, "Cast", "Shape"}:
            return False
        kinds = [self._graph.element_type(tensor) for tensor in node.output]
        return bool(kinds) and all(kind == _FLOAT for kind in kinds)

    def _as_half(self, tensor: str, before: list[Any]) -> str:
        if tensor in self._half or self._graph.element_type(tensor) != _FLOAT:
            return tensor
        if self._graph.is_weight(tensor):
            values = self._graph.weight(tensor)
            if np.isfinite(values).all() and values.size and np.abs(values).max() > MAX_HALF:
                clipped = np.clip(values, -MAX_HALF, MAX_HALF)
                if values.ndim:  # a bound of a Clip may be any number; a weight may not
                    raise ModelError(f"weight {tensor!r} does not fit into float16", f"{np.abs(values).max():g}")
                values = clipped
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
