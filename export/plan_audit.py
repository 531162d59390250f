"""What NVIDIA's compiler made of a graph: how many kernels, and in which data type each convolution runs.

An engine inspector would tell it too, but needs a GPU. So it is read from the list of layers that the builder logs at
detailed verbosity, as TensorRT-RTX 1.7 writes it:

    Name: NODE_myl0_3, LayerType: correlation, Inputs: [ { Name: .., Dimensions: [1,64,45,60], .., Datatype: Int8, .. }
    ], Constants: [ .. ], Outputs: [ .. ], TacticName: .., Metadata: [ONNX Layer: NODE][ONNX Layer: OTHER_NODE]

What the list does not say is not guessed: a data type is then `unknown`, a growth None. Which library kernel runs is
decided on the device, so times cannot be told from it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from math import prod

UNKNOWN = "unknown"
_TYPES = {"Float": "fp32", "Half": "fp16", "BFloat16": "bf16", "Int8": "int8", "FP8": "fp8"}

_NO_KERNELS = {"signal", "wait"}
"""Layers that only order the streams."""

_GENERATED = {"kgen", "runtime_function"}
"""Kernels made of small steps, which are in the name: `__myl_MulMinMaxRounCast`. Most that name a convolution's node do
its scale, bias or padding; one that sums and holds its weights is the convolution itself."""

_CONVERTING_STEPS = {"Cast", "Conc", "Max", "Min", "Move", "Mul", "Resh", "Roun", "Tran"}
"""Rounding to int8 is Mul, Min, Max, Roun, Cast; padding of channels is Conc."""

_CONVERTING = {"Cast", "DequantizeLinear", "Identity", "QuantizeLinear", "Reshape", "Transpose"}


@dataclass(frozen=True, slots=True)
class GraphNode:
    """A node of the graph that was compiled.

    Attributes:
        operator: of ONNX.
        output: name of its first output.
        weights: number of its weights; 0 where it has none, or they are not known.
    """

    operator: str
    output: str
    weights: int = 0

    @property
    def is_convolution(self) -> bool:
        """True for what multiplies and adds."""
        return self.operator in {"Conv", "ConvTranspose", "Gemm", "MatMul"}


@dataclass(frozen=True, slots=True)
class PlannedConvolution:
    """What became of one convolution or matrix product.

    Attributes:
        data_type: what it multiplies: `int8`, `fp16`, `fp32`, ..; `unknown` where the compiler does not tell.
        output_type: what it writes. One that multiplies int8 and writes fp32 leaves scale, bias and activation to
            another kernel.
        growth: weights in the plan over weights in the graph: above 1 where the compiler pads channels; None where it
            does not tell.
    """

    data_type: str
    output_type: str
    growth: float | None


@dataclass(frozen=True, slots=True)
class PlanAudit:
    """A compiled plan, counted.

    Attributes:
        compute_capability: what it was compiled for; 86 is 8.6.
        kernels: launched for one frame.
        conversions: those of them that change nothing but type, scale or layout; at least so many.
        convolutions: each Conv, ConvTranspose, Gemm and MatMul, by the name of its first output.
    """

    compute_capability: int
    kernels: int
    conversions: int
    convolutions: Mapping[str, PlannedConvolution]

    def document(self) -> dict[str, object]:
        """For JSON: the attributes, nested."""
        return asdict(self)

    def text(self) -> str:
        """For a person: a few lines."""
        planned = self.convolutions.values()
        types = Counter(convolution.data_type for convolution in planned)
        counts = ", ".join(f"{count} in {name}" for name, count in sorted(types.items()))
        where = shown_capability(self.compute_capability)
        lines = [f"{where}: {self.kernels} kernels, {self.conversions} only convert; convolutions: {counts or 'none'}"]
        apart = sum(one.data_type == "int8" and one.output_type == "fp32" for one in planned)
        if apart:
            lines.append(f"int8 that writes fp32, with scale, bias and activation in another kernel: {apart}")
        padded = {name: one.growth for name, one in self.convolutions.items() if one.growth and one.growth > 1}
        if padded:
            worst = max(padded, key=lambda name: padded[name])
            lines.append(f"padded channels: {len(padded)}, most in {worst}: {padded[worst]:.1f} times the weights")
        return "\n".join(lines)


def shown_capability(compute_capability: int) -> str:
    """86 as 8.6, 120 as 12.0."""
    return f"{compute_capability // 10}.{compute_capability % 10}"


def audit_plan(listing: str, nodes: Mapping[str, GraphNode], compute_capability: int) -> PlanAudit | None:
    """Count a compiled plan.

    Args:
        listing: the list of layers from the builder's log.
        nodes: of the graph by name. The names are unique and made of letters, digits and `_` only.
        compute_capability: what it was compiled for; 86 is 8.6.

    Returns:
        The audit; None where the list has no layers: another release writes it differently.
    """
    layers = [layer for line in listing.splitlines() if (layer := _layer(line, nodes)) is not None]
    kernels = [layer for layer in layers if layer.kind not in _NO_KERNELS]
    if not kernels:
        return None
    done_elsewhere = {node for layer in kernels if layer.kind not in _GENERATED for node in layer.nodes}
    return PlanAudit(
        compute_capability,
        len(kernels),
        sum(_only_converts(layer, nodes, done_elsewhere) for layer in kernels),
        {node.output: _planned(name, node, kernels) for name, node in nodes.items() if node.is_convolution},
    )


@dataclass(frozen=True, slots=True)
class _Tensor:
    elements: int
    axes: int
    data_type: str


@dataclass(frozen=True, slots=True)
class _Layer:
    name: str
    kind: str
    inputs: tuple[_Tensor, ...]
    constants: tuple[_Tensor, ...]
    outputs: tuple[_Tensor, ...]
    nodes: tuple[str, ...]


_LINE = re.compile(
    r"Name: (?P<name>.*?)(?:_myl\d+_\d+)?, LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*?)\], "
    r"Constants: \[(?P<constants>.*?)\], Outputs: \[(?P<outputs>.*?)\], TacticName: "
)
_TENSOR = re.compile(r", Dimensions: \[([\d,]*)\].*?, Datatype: (\w+)")
_NODE = re.compile(r"\[ONNX Layer: (\w+)\]")


def _layer(line: str, nodes: Mapping[str, GraphNode]) -> _Layer | None:
    found = _LINE.match(line)
    if found is None:
        return None
    named = tuple(name for name in _NODE.findall(line, found.end()) if name in nodes)
    inputs, constants, outputs = (_tensors(found[part]) for part in ("inputs", "constants", "outputs"))
    return _Layer(found["name"], found["kind"], inputs, constants, outputs, named)


def _tensors(text: str) -> tuple[_Tensor, ...]:
    tensors = []
    for dimensions, data_type in _TENSOR.findall(text):
        shape = [int(size) for size in dimensions.split(",") if size]
        tensors.append(_Tensor(prod(shape), len(shape), _TYPES.get(data_type, data_type.lower())))
    return tuple(tensors)


def _only_converts(layer: _Layer, nodes: Mapping[str, GraphNode], done_elsewhere: Collection[str]) -> bool:
    """True for a generated kernel of converting steps whose nodes convert, or are computed by another kernel."""
    steps = _steps(layer)
    if not steps or not _CONVERTING_STEPS.issuperset(steps):
        return False
    return all(nodes[name].operator in _CONVERTING or name in done_elsewhere for name in layer.nodes)


def _steps(layer: _Layer) -> list[str]:
    """What a generated kernel does, by its name; empty for other kernels."""
    if layer.kind not in _GENERATED or not layer.name.startswith("__myl_"):
        return []
    return re.findall("[A-Z][a-z]+", layer.name.removeprefix("__myl_"))


def _multiplies(layer: _Layer, name: str, node: GraphNode) -> bool:
    if name not in layer.nodes or not layer.inputs or not layer.outputs:
        return False
    if layer.kind not in _GENERATED:
        return True
    return "Sum" in _steps(layer) and any(tensor.elements == node.weights for tensor in layer.constants)


def _planned(name: str, node: GraphNode, kernels: list[_Layer]) -> PlannedConvolution:
    layers = [layer for layer in kernels if _multiplies(layer, name, node)]
    if not layers:
        return PlannedConvolution(UNKNOWN, UNKNOWN, None)
    layer = next((layer for layer in layers if layer.name == name), layers[0])
    largest = max(layer.constants, key=lambda tensor: tensor.elements, default=None)
    has_weights = largest is not None and largest.axes > 1 and 0 < node.weights <= largest.elements
    weights = largest if has_weights else None
    is_fused = layer.name != name  # then the first input may be another operator's
    factors = [*(layer.inputs if is_fused else layer.inputs[:1]), *([weights] if weights else [])]
    types = {tensor.data_type for tensor in factors}
    return PlannedConvolution(
        types.pop() if len(types) == 1 else UNKNOWN,
        layer.outputs[0].data_type,
        weights.elements / node.weights if weights else None,
    )
