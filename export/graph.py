"""An ONNX graph with its indices: who makes a tensor, who reads it, what shape it has, which weights there are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.engines.onnxruntime import BATCH_AXIS

if TYPE_CHECKING:
    import onnx


class Graph:
    """A serialized model, parsed, with shapes inferred. Rewriting goes through its methods, which keep the indices.

    Args:
        content: a serialized ONNX model with fixed shapes; one that takes any number of pictures is seen as if it took
            one.

    Attributes:
        model: the message itself.
        has_open_batch: it takes any number of pictures, and is serialized so: the first axis of its inputs and outputs
            is BATCH_AXIS.
    """

    def __init__(self, content: bytes) -> None:
        import onnx

        model = onnx.load_from_string(content)
        self.has_open_batch = False
        for first in _first_axes(model):
            if first.dim_param == BATCH_AXIS:
                first.dim_value = 1
                self.has_open_batch = True
        self.model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        self._weights = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self._values = {
            value.name: value
            for value in (*self.model.graph.value_info, *self.model.graph.input, *self.model.graph.output)
        }
        self._index()

    def _index(self) -> None:
        self._producers: dict[str, Any] = {}
        self._readers: dict[str, list[Any]] = defaultdict(list)
        for node in self.nodes:
            self._producers |= dict.fromkeys(node.output, node)
            for name in {name for inner in (node, *inner_nodes(node)) for name in inner.input if name}:
                self._readers[name].append(node)

    @property
    def nodes(self) -> list[Any]:
        """All nodes in topological order."""
        return list(self.model.graph.node)

    @property
    def outputs(self) -> list[str]:
        """Names of the graph's outputs."""
        return [value.name for value in self.model.graph.output]

    def producer(self, tensor: str) -> Any | None:
        """The node that makes a tensor; None for inputs and weights."""
        return self._producers.get(tensor)

    def readers(self, tensor: str) -> list[Any]:
        """The nodes that read a tensor, in order."""
        return list(self._readers.get(tensor, ()))

    def only_reader(self, tensor: str) -> Any | None:
        """The one node that reads a tensor which is no output of the graph; None where there are others."""
        readers = self.readers(tensor)
        return readers[0] if len(readers) == 1 and tensor not in self.outputs else None

    def shape(self, tensor: str) -> list[int]:
        """The shape of a tensor or weight; empty where it is not known or has no axes."""
        if tensor in self._weights:
            return list(self._weights[tensor].dims)
        value = self._values.get(tensor)
        return [dim or 0 for dim in dims_of(value)] if value is not None else []

    def element_type(self, tensor: str) -> int:
        """The type of a tensor's or weight's elements, of `TensorProto.DataType`; 0 where it is not known."""
        if tensor in self._weights:
            return int(self._weights[tensor].data_type)
        value = self._values.get(tensor)
        return int(value.type.tensor_type.elem_type) if value is not None else 0

    def is_weight(self, tensor: str) -> bool:
        """True for what is stored in the model."""
        return tensor in self._weights

    def weight(self, tensor: str) -> NDArray[Any]:
        """The value of a weight.

        Raises:
            KeyError: it is none.
        """
        import onnx

        return np.asarray(onnx.numpy_helper.to_array(self._weights[tensor]))

    def set_weight(self, name: str, value: NDArray[Any]) -> str:
        """Store a weight, under a new name or in place of the one there; returns its name."""
        import onnx

        tensor = onnx.numpy_helper.from_array(np.array(value, order="C"), name)  # keeps a rank of 0
        if name in self._weights:
            self._weights[name].CopyFrom(tensor)
        else:
            self.model.graph.initializer.append(tensor)
            self._weights[name] = self.model.graph.initializer[-1]
        return name

    def replace_nodes(self, nodes: Iterable[Any]) -> None:
        """Put other nodes in place of all, in topological order."""
        nodes = list(nodes)
        del self.model.graph.node[:]
        self.model.graph.node.extend(nodes)
        self._index()

    def serialized(self) -> bytes:
        """The model without what nothing reads and without inferred shapes: the same graph gives the same bytes."""
        graph = self.model.graph
        wanted = set(self.outputs)
        kept = []
        for node in reversed(graph.node):
            if wanted & set(node.output):
                kept.append(node)
                wanted |= {name for inner in (node, *inner_nodes(node)) for name in inner.input if name}
        weights = [tensor for tensor in graph.initializer if tensor.name in wanted]
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        del model.graph.node[:], model.graph.initializer[:]
        model.graph.node.extend(reversed(kept))
        model.graph.initializer.extend(weights)
        del model.graph.value_info[:]
        if self.has_open_batch:
            for first in _first_axes(model):
                first.dim_param = BATCH_AXIS
        content: bytes = model.SerializeToString(deterministic=True)
        return content


def _first_axes(model: onnx.ModelProto) -> list[Any]:
    """Of the inputs and outputs whose shapes are there."""
    shapes = [value.type.tensor_type.shape.dim for value in (*model.graph.input, *model.graph.output)]
    return [dims[0] for dims in shapes if dims]


def attribute_of(node: Any, name: str, default: Any = None) -> Any:
    """The value of a node's attribute."""
    import onnx

    for attribute in node.attribute:
        if attribute.name == name:
            return onnx.helper.get_attribute_value(attribute)
    return default


def dims_of(value: Any) -> list[int | None]:
    """The shape of a ValueInfoProto; None for what is not fixed."""
    return [
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None
        for dim in value.type.tensor_type.shape.dim
    ]


def inner_nodes(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The nodes of a node's subgraphs, at any depth."""
    found: list[onnx.NodeProto] = []
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                found += [inner, *inner_nodes(inner)]
    return found


_OF_ONE = frozenset({"ArgMax", "TopK"})
_DECIDERS = _OF_ONE | {"Greater", "GreaterOrEqual", "Less", "LessOrEqual"}
_MOVES = frozenset(
    {"Cast", "Concat", "Flatten", "Gather", "Identity", "Reshape", "Resize", "Slice", "Split", "Squeeze", "Transpose",
     "Unsqueeze", "Upsample"}
)  # fmt: skip
_NORMALIZES = frozenset({"HardSigmoid", "LogSoftmax", "Sigmoid", "Softmax"})
_CARRIES = _MOVES | {"Mul", "Not", "Where"}  # classes may be renumbered, or written as 0 and 255
_FLOATS = frozenset({1, 10, 11, 16})  # FLOAT, FLOAT16, DOUBLE, BFLOAT16 of TensorProto.DataType


def class_scores(graph: Graph) -> frozenset[str]:
    """Names of the tensors that decide the classes: rounded, scores tie, and ties change classes at every border.

    They lie between what compares scores on its way to an output (ArgMax, Greater, ..) and what makes them, this
    included: only moved (Resize, Transpose, ..) or normalized (Softmax, Sigmoid, ..) in between. Where nothing in the
    graph compares, who reads its outputs does: they are the scores.
    """
    carried = _behind(graph, graph.outputs, _CARRIES)
    deciders = {id(node): node for node in map(graph.producer, carried) if node and node.op_type in _DECIDERS}
    compared = [name for node in deciders.values() for name in node.input[: 1 if node.op_type in _OF_ONE else 2]]
    if not deciders:
        compared = [name for name in graph.outputs if graph.element_type(name) in _FLOATS]
    return _behind(graph, compared, _MOVES | _NORMALIZES)


def _behind(graph: Graph, tensors: Iterable[str], through: frozenset[str]) -> frozenset[str]:
    """These tensors and all from which only such operators lead to them; no weights."""
    found: set[str] = set()
    waiting = list(tensors)
    while waiting:
        tensor = waiting.pop()
        if not tensor or tensor in found or graph.is_weight(tensor):
            continue
        found.add(tensor)
        node = graph.producer(tensor)
        if node is not None and node.op_type in through:
            waiting += node.input if node.op_type in {"Concat", "Gather", "Mul", "Where"} else node.input[:1]
    return frozenset(found)
