"""Checking how an ONNX graph is quantized against what engines compute fast and right, each rule with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vidseg.export.graph import Graph, attribute_of, class_scores, inner_nodes
from vidseg.export.groups import MIN_CHANNELS, OPERATORS
from vidseg.export.lint_rules import (
    ACTIVATION,
    AXIS,
    BIAS,
    CLASSIFIER,
    DEPTHWISE,
    DOMAIN,
    EXPLICIT,
    FACTORS,
    INPUTS,
    INT8,
    INTEGER,
    NARROW,
    NORM,
    OWN,
    PAD,
    RANGE,
    SCALAR,
    SCALE,
    SHAPE,
    SKIP,
    ZERO,
    Rule,
)
from vidseg.export.qdq import channel_axis
from vidseg.runtime.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Q, DQ = "QuantizeLinear", "DequantizeLinear"


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that is broken, and where: the name of a tensor, and what is there."""

    rule: Rule
    tensor: str
    got: str

    def __str__(self) -> str:
        return f"{self.rule.level}: {self.rule.name}: {self.tensor}: {self.got}. {self.rule.reason}"


_ACTIVATIONS = ("Relu", "PRelu", "LeakyRelu", "Clip", "HardSwish", "Sigmoid", "HardSigmoid", "Elu", "Tanh")

_INTEGER = frozenset(
    {"ConvInteger", "DynamicQuantizeLinear", "DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat",
     "QAttention", "QGemm"}
)  # fmt: skip
"""Beside QLinearConv and all whose names begin like that: of ONNX, and of ONNX Runtime's own domain."""

_MOVES = frozenset(
    {"Cast", "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GlobalMaxPool", "Identity", "MaxPool", "Pad",
     "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze"}
)  # fmt: skip
"""What may stand between a DequantizeLinear and a product: it is computed in INT8 all the same (each tried with
TensorRT-RTX 1.7; not so AveragePool, Resize and activations)."""


def lint(content: bytes) -> list[Finding]:
    """All findings, errors first, in the order of the graph. A float graph has none.

    Args:
        content: a serialized ONNX model.

    Raises:
        ModelError: it is none, or not a valid one.
    """
    graph = _parsed(content)
    findings = [finding for check in _CHECKS for finding in check(graph)]
    return sorted(findings, key=lambda finding: finding.rule.level != "error")


def _parsed(content: bytes) -> Graph:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        onnx.checker.check_model(content)
        return _prepared(Graph(content))
    except (
        DecodeError, KeyError, TypeError, ValueError,  # of a weight whose type or size is wrong: the last three
        onnx.checker.ValidationError, onnx.shape_inference.InferenceError,
    ) as error:  # fmt: skip
        reason = str(error).strip().partition("\n")[0][:200]
        raise ModelError("not a valid ONNX model", reason, "Export it again.") from error


def _prepared(graph: Graph) -> Graph:
    """With foreign operators by their full names, and the values of Constant nodes, which exporters write, as weights.

    Raises:
        KeyError, TypeError, ValueError: a weight cannot be read.
    """
    import onnx

    nodes = []
    for node in graph.nodes:
        if node.domain not in {"", "ai.onnx"}:
            node.op_type = f"{node.domain}::{node.op_type}"
        value = attribute_of(node, "value") if node.op_type == "Constant" else None
        if value is None:
            nodes.append(node)
        else:
            graph.set_weight(node.output[0], onnx.numpy_helper.to_array(value))
    graph.replace_nodes(nodes)
    for tensor in graph.model.graph.initializer:
        graph.weight(tensor.name)
    return graph


def _pairs(graph: Graph) -> Iterator[tuple[Any, Any]]:
    """Each Q with each DQ behind it."""
    for node in graph.nodes:
        if node.op_type == Q:
            for reader in graph.readers(node.output[0]):
                if reader.op_type == DQ:
                    yield node, reader


def _quantizers(graph: Graph) -> list[Any]:
    return [node for node in graph.nodes if node.op_type in {Q, DQ}]


def _constant(graph: Graph, tensor: str) -> NDArray[Any] | None:
    return graph.weight(tensor) if graph.is_weight(tensor) else None


def _dequantized(graph: Graph) -> frozenset[str]:
    """All tensors that hold dequantized values, moved or not."""
    found: set[str] = set()
    for node in graph.nodes:
        data = node.input if node.op_type == "Concat" else node.input[:1]
        if node.op_type == DQ or (node.op_type in _MOVES and found.issuperset(data)):
            found.update(node.output)
    return frozenset(found)


def _readers(graph: Graph, tensor: str) -> list[Any]:
    """The nodes that compute with a tensor, moved or not, in order."""
    found, seen = [], {tensor}
    waiting = graph.readers(tensor)
    while waiting:
        node = waiting.pop(0)
        if node.op_type not in _MOVES:
            found.append(node)
            continue
        for output in node.output:
            if output not in seen:
                seen.add(output)
                waiting += graph.readers(output)
    return found


def _products(graph: Graph) -> list[Any]:
    return [node for node in graph.nodes if node.op_type in OPERATORS]


def _check_operators(graph: Graph) -> Iterator[Finding]:
    for outer in graph.nodes:
        for node in (outer, *inner_nodes(outer)):
            name, (domain, _, operator) = next(iter(node.output), node.name), node.op_type.rpartition("::")
            if operator in _INTEGER or operator.startswith("QLinear"):
                yield Finding(INTEGER, name, node.op_type)
            elif domain and operator in {Q, DQ}:
                yield Finding(DOMAIN, name, f"domain {domain}")


def _check_parameters(graph: Graph) -> Iterator[Finding]:
    for node in _quantizers(graph):
        name = node.output[0]
        scale = _constant(graph, node.input[1])
        if scale is None:
            yield Finding(SCALE, name, "a scale that is computed")
        elif scale.dtype != np.float32 or not scale.size or not np.isfinite(scale).all() or not (scale > 0).all():
            yield Finding(SCALE, name, f"{scale.dtype}, smallest {scale.min():g}" if scale.size else "none")
        if len(node.input) < 3 or not node.input[2]:
            yield Finding(EXPLICIT, name, "none")
            continue
        zero_point = _constant(graph, node.input[2])
        if zero_point is None:
            yield Finding(ZERO, name, "one that is computed")
            continue
        if zero_point.dtype != np.int8:
            yield Finding(BIAS if zero_point.dtype == np.int32 else INT8, name, f"{zero_point.dtype}")
        if zero_point.any():
            yield Finding(ZERO, name, f"{zero_point.ravel()[0]}")
        if scale is not None and scale.shape != zero_point.shape:
            yield Finding(SHAPE, name, f"{zero_point.shape} for {scale.shape}")


def _check_scalars(graph: Graph) -> Iterator[Finding]:
    for node, _ in _pairs(graph):
        scale = _constant(graph, node.input[1])
        if scale is not None and scale.ndim and not graph.is_weight(node.input[0]):
            yield Finding(SCALAR, node.output[0], f"shape {scale.shape}")


def _check_sharing(graph: Graph) -> Iterator[Finding]:
    owners: dict[str, str] = {}
    for node in _quantizers(graph):
        before = graph.producer(node.input[0]) if node.op_type == DQ else None
        owner = str(before.input[0] if before is not None and before.op_type == Q else node.input[0])
        if owners.setdefault(node.input[1], owner) != owner:
            yield Finding(OWN, node.output[0], f"{node.input[1]} is that of {owners[node.input[1]]} too")


def _check_weights(graph: Graph) -> Iterator[Finding]:
    for node in _products(graph):
        for position, tensor in enumerate(node.input):
            weight = _weight_of(graph, tensor)
            if weight is None:
                continue
            if position == 2:
                yield Finding(BIAS, node.output[0], f"a bias behind {weight.node.output[0]}")
                continue
            if weight.values.dtype == np.int8 and weight.values.size and weight.values.min() == -128:
                yield Finding(RANGE, weight.name, "-128")
            if weight.values.ndim < 2:  # a vector has no channels
                continue
            axis = channel_axis(node, weight.values.ndim, tensor)
            if weight.axis != axis:
                yield Finding(AXIS, weight.name, f"axis {weight.axis} for {axis}")


@dataclass(frozen=True, slots=True, eq=False)
class _Weight:
    """A weight as a product reads it: int8 behind DequantizeLinear, or float behind a pair, as NVIDIA's tools write.

    Attributes:
        name: of what is stored.
        node: the DequantizeLinear.
        values: what is stored, turned as the product reads it.
        axis: along which there are several scales, as the product reads it; None where there is one.
    """

    name: str
    node: Any
    values: NDArray[Any]
    axis: int | None


def _weight_of(graph: Graph, tensor: str) -> _Weight | None:
    """The quantized weight that a tensor is; None where it is none, or is computed."""
    turns: list[Sequence[int] | None] = []
    node = graph.producer(tensor)
    while node is not None and node.op_type in {"Cast", "Identity", "Transpose"}:
        if node.op_type == "Transpose":
            turns.append(attribute_of(node, "perm"))
        node = graph.producer(node.input[0])
    if node is None or node.op_type != DQ:
        return None
    before = graph.producer(node.input[0])
    stored = before.input[0] if before is not None and before.op_type == Q else node.input[0]
    if not graph.is_weight(stored):
        return None
    values, scale = graph.weight(stored), _constant(graph, node.input[1])
    axis = None if scale is None or scale.ndim == 0 or not values.ndim else _axis_of(node, values.ndim)
    for turn in reversed(turns):
        order = list(range(values.ndim))[::-1] if turn is None else list(turn)
        values, axis = values.transpose(order), axis if axis is None else order.index(axis)
    return _Weight(stored, node, values, axis)


def _axis_of(node: Any, dimensions: int) -> int:
    return int(attribute_of(node, "axis", 1)) % dimensions


def _check_places(graph: Graph) -> Iterator[Finding]:
    for quantizer, dequantizer in _pairs(graph):
        before, name = graph.producer(quantizer.input[0]), quantizer.output[0]
        product = _product_behind(graph, before)
        for reader in _readers(graph, dequantizer.output[0]):
            if reader.op_type in _ACTIVATIONS and product is not None:
                yield Finding(ACTIVATION, name, f"between {product.op_type} and {reader.op_type}")
            elif reader.op_type not in {*OPERATORS, "Add"}:
                yield Finding(INPUTS, name, f"read by {reader.op_type}")
        if before is not None and before.op_type == "Pad":
            yield Finding(PAD, name, "behind Pad")
    dequantized = _dequantized(graph)
    for node in graph.nodes:
        if node.op_type == "Add" and dequantized.issuperset(node.input):
            yield Finding(SKIP, node.output[0], "both branches")


def _product_behind(graph: Graph, node: Any | None) -> Any | None:
    """The product that a node is, or that engines fuse it with."""
    if node is not None and node.op_type in {"Add", "BatchNormalization"}:
        sources = [graph.producer(tensor) for tensor in node.input]
        node = next((source for source in sources if source is not None and source.op_type in OPERATORS), None)
    return node if node is not None and node.op_type in OPERATORS else None


def _check_products(graph: Graph) -> Iterator[Finding]:
    dequantized = _dequantized(graph)
    for node in _products(graph):
        factors = [tensor in dequantized for tensor in node.input[:2]]
        if any(factors) and not all(factors):
            yield Finding(FACTORS, node.output[0], f"{'the second' if factors[0] else 'the first'} is float")
        if not all(factors):
            continue
        reader = graph.only_reader(node.output[0])
        if reader is not None and reader.op_type == "BatchNormalization":
            yield Finding(NORM, node.output[0], "BatchNormalization behind it")
        shape = graph.shape(node.input[1])
        if node.op_type in {"Conv", "ConvTranspose"} and len(shape) == 4 and all(shape):
            yield from _check_channels(node, shape)


def _check_channels(node: Any, shape: list[int]) -> Iterator[Finding]:
    group = attribute_of(node, "group", 1)
    out, into = shape[0], shape[1] * group  # a ConvTranspose has them the other way round
    if node.op_type == "ConvTranspose":
        out, into = into, out
    if group > 1 and group == into:
        yield Finding(DEPTHWISE, node.output[0], f"{group} channels")
    elif min(out, into) < MIN_CHANNELS:
        yield Finding(NARROW, node.output[0], f"{into} to {out} channels")


def _check_classifier(graph: Graph) -> Iterator[Finding]:
    scores = class_scores(graph)
    for node in _quantizers(graph):
        if node.output[0] in scores:
            readers = [reader.op_type for reader in graph.readers(node.output[0])]
            yield Finding(CLASSIFIER, node.output[0], f"read by {readers[0]}" if readers else "an output of the graph")


_CHECKS: tuple[Callable[[Graph], Iterator[Finding]], ...] = (
    _check_operators, _check_parameters, _check_scalars, _check_sharing, _check_weights, _check_places, _check_products,
    _check_classifier,
)  # fmt: skip


def quantized_products(content: bytes) -> tuple[int, int]:
    """How many convolutions and products read dequantized values on both sides, and how many there are.

    Args:
        content: a serialized ONNX model.

    Raises:
        ModelError: it is none, or not a valid one.
    """
    graph = _parsed(content)
    products, dequantized = _products(graph), _dequantized(graph)
    return sum(dequantized.issuperset(node.input[:2]) for node in products), len(products)
