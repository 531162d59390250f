"""Checking how an ONNX graph is quantized against what engines compute fast and right, each rule with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vidseg.export.graph import Graph, attribute_of
from vidseg.export.groups import MIN_CHANNELS, OPERATORS
from vidseg.export.qdq import channel_axis

if TYPE_CHECKING:
    from numpy.typing import NDArray

Q, DQ = "QuantizeLinear", "DequantizeLinear"


@dataclass(frozen=True, slots=True)
class Rule:
    """What quantized graphs keep to.

    Attributes:
        name: for messages.
        level: `error` where an engine refuses the graph or computes something else, `advice` where it only is slower.
        reason: why.
    """

    name: str
    level: Literal["error", "advice"]
    reason: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that is broken, and where: the name of a tensor, and what is there."""

    rule: Rule
    tensor: str
    got: str

    def __str__(self) -> str:
        return f"{self.rule.level}: {self.rule.name}: {self.tensor}: {self.got}. {self.rule.reason}"


DOMAIN = Rule("default domain", "error", "TensorRT's parser knows the standard operators only.")
INT8 = Rule("int8 only", "error", "TensorRT takes no uint8 activations; write zero points as int8.")
EXPLICIT = Rule("explicit zero point", "error", "Without one the type is uint8, which TensorRT refuses.")
ZERO = Rule("zero point 0", "error", "TensorRT quantizes symmetrically.")
SCALE = Rule("scale above 0", "error", "Scales are float32 constants, finite and above 0; TensorRT refuses others.")
SHAPE = Rule("zero point of the scale's shape", "error", "ONNX demands it.")
SCALAR = Rule(
    "activation scale without axes", "error",
    "With one axis, TensorRT-RTX 1.7 takes it for per-channel and computes in float32.",
)  # fmt: skip
OWN = Rule("a scale of its own", "error", "Refitting or fusing one tensor would change the scale of another.")
RANGE = Rule("weights in -127..127", "error", "-128 has no opposite; symmetric kernels do not hold it.")
AXIS = Rule(
    "weights by output channel", "advice",
    "One scale for all channels loses accuracy, another axis is refused; a grouped ConvTranspose takes one scale.",
)  # fmt: skip
BIAS = Rule("bias in float", "error", "NVIDIA's parser refuses an int32 bias behind a DequantizeLinear.")
INPUTS = Rule(
    "pairs on the inputs of products", "advice",
    "Only convolutions and products compute in INT8; a pair elsewhere costs time and accuracy.",
)  # fmt: skip
ACTIVATION = Rule(
    "nothing between a product and its activation", "advice", "Engines fuse the two only if no pair stands between."
)
SKIP = Rule(
    "only the skip branch of an addition", "advice",
    "The other branch is fused with its convolution and added before rounding.",
)  # fmt: skip
PAD = Rule("pair before Pad", "advice", "Behind it, padding stays a float kernel of its own.")
NORM = Rule("BatchNormalization folded", "advice", "Fold it into the weights before they are quantized.")
NARROW = Rule(
    f"{MIN_CHANNELS} channels or more", "advice", "Fewer fill no vector of an INT8 kernel: measure that it gains."
)
DEPTHWISE = Rule(
    "depthwise in float", "advice", "TensorRT-RTX pads weights and inputs fourfold, TensorRT 8 has no kernel for some."
)
CLASSIFIER = Rule("classifier output in float", "error", "Rounded scores tie, and ties change classes at every border.")
RULES = (
    DOMAIN, INT8, EXPLICIT, ZERO, SCALE, SHAPE, SCALAR, OWN, RANGE, AXIS, BIAS, INPUTS, ACTIVATION, SKIP, PAD, NORM,
    NARROW, DEPTHWISE, CLASSIFIER,
)  # fmt: skip

_ACTIVATIONS = ("Relu", "PRelu", "LeakyRelu", "Clip", "HardSwish", "Sigmoid", "HardSigmoid", "Elu", "Tanh")
_DECIDERS = ("ArgMax", "Softmax", "LogSoftmax", "Greater")


def lint(content: bytes) -> list[Finding]:
    """All findings, errors first, in the order of the graph. A graph without Q/DQ has none.

    Args:
        content: a serialized ONNX model.
    """
    graph = _parsed(content)
    findings = [finding for check in _CHECKS for finding in check(graph)]
    return sorted(findings, key=lambda finding: finding.rule.level != "error")


def _parsed(content: bytes) -> Graph:
    """With the values of Constant nodes as weights: exporters write either, and engines see no difference."""
    import onnx

    graph = Graph(content)
    nodes = []
    for node in graph.nodes:
        value = attribute_of(node, "value") if node.op_type == "Constant" else None
        if value is None:
            nodes.append(node)
        else:
            graph.set_weight(node.output[0], onnx.numpy_helper.to_array(value))
    graph.replace_nodes(nodes)
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


def _check_parameters(graph: Graph) -> Iterator[Finding]:
    for node in _quantizers(graph):
        name = node.output[0]
        if node.domain not in {"", "ai.onnx"}:
            yield Finding(DOMAIN, name, f"domain {node.domain}")
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
    for node in graph.nodes:
        if node.op_type not in OPERATORS:
            continue
        for position, tensor in enumerate(node.input):
            source = graph.producer(tensor)
            if source is None or source.op_type != DQ or not graph.is_weight(source.input[0]):
                continue
            values, scale = graph.weight(source.input[0]), _constant(graph, source.input[1])
            if position == 2:
                yield Finding(BIAS, node.output[0], f"a bias behind {source.output[0]}")
                continue
            if values.dtype == np.int8 and values.size and values.min() == -128:
                yield Finding(RANGE, source.input[0], "-128")
            if values.ndim < 2:  # a vector has no channels
                continue
            stand_in = _with_input(node, position, "weight")
            axis = channel_axis(stand_in, values.ndim, "weight")
            found = None if scale is None or scale.ndim == 0 else _axis_of(source, values.ndim)
            if found != axis:
                yield Finding(AXIS, source.input[0], f"axis {found} for {axis}")


def _with_input(node: Any, position: int, name: str) -> Any:
    import onnx

    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[position] = name
    return copy


def _axis_of(node: Any, dimensions: int) -> int:
    return int(attribute_of(node, "axis", 1)) % dimensions


def _check_places(graph: Graph) -> Iterator[Finding]:
    for quantizer, dequantizer in _pairs(graph):
        before, name = graph.producer(quantizer.input[0]), quantizer.output[0]
        for reader in graph.readers(dequantizer.output[0]):
            if reader.op_type in _ACTIVATIONS and before is not None and before.op_type in OPERATORS:
                yield Finding(ACTIVATION, name, f"between {before.op_type} and {reader.op_type}")
            elif reader.op_type not in {*OPERATORS, "Add", "Pad"}:
                yield Finding(INPUTS, name, f"read by {reader.op_type}")
        if before is not None and before.op_type == "Pad":
            yield Finding(PAD, name, "behind Pad")
    for node in graph.nodes:
        sources = [graph.producer(tensor) for tensor in node.input]
        kinds = [source.op_type if source is not None else "" for source in sources]
        if node.op_type == "Add" and kinds == [DQ, DQ]:
            yield Finding(SKIP, node.output[0], "both branches")


def _check_groups(graph: Graph) -> Iterator[Finding]:
    for node in graph.nodes:
        if node.op_type not in OPERATORS:
            continue
        kinds = [getattr(graph.producer(tensor), "op_type", "") for tensor in node.input[:2]]
        if kinds != [DQ, DQ]:
            continue
        reader = graph.only_reader(node.output[0])
        if reader is not None and reader.op_type == "BatchNormalization":
            yield Finding(NORM, node.output[0], "BatchNormalization behind it")
        shape = graph.shape(node.input[1])
        group = attribute_of(node, "group", 1)
        if node.op_type == "Conv" and len(shape) == 4:
            if group > 1 and group == shape[1] * group:
                yield Finding(DEPTHWISE, node.output[0], f"{group} channels")
            elif min(shape[0], shape[1] * group) < MIN_CHANNELS:
                yield Finding(NARROW, node.output[0], f"{shape[1] * group} to {shape[0]} channels")


def _check_classifier(graph: Graph) -> Iterator[Finding]:
    for node in graph.nodes:
        if node.op_type not in _DECIDERS:
            continue
        source = graph.producer(node.input[0])
        while source is not None and source.op_type in {"Resize", "Transpose", "Reshape", "Identity", "Sigmoid"}:
            source = graph.producer(source.input[0])
        if source is not None and source.op_type == DQ:
            yield Finding(CLASSIFIER, source.output[0], f"read by {node.op_type}")


_CHECKS: tuple[Callable[[Graph], Iterator[Finding]], ...] = (
    _check_parameters, _check_scalars, _check_sharing, _check_weights, _check_places, _check_groups, _check_classifier,
)  # fmt: skip


def quantized_products(content: bytes) -> tuple[int, int]:
    """How many convolutions and products read dequantized values on both sides, and how many there are."""
    graph = _parsed(content)
    nodes = [node for node in graph.nodes if node.op_type in OPERATORS]
    quantized = [
        node for node in nodes if all(getattr(graph.producer(tensor), "op_type", "") == DQ for tensor in node.input[:2])
    ]
    return len(quantized), len(nodes)
