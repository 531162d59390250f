"""What TensorRT made of a graph, from its engine inspector: how many layers, and in which data type convolutions run.

The inspector writes JSON, in a form for each of 8.5 to 10 and 11, and only names of layers where a plan was built
without details (NVIDIA's Developer Guide, "Engine Inspector"). What it does not say is not guessed.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vidseg.runtime.engines.graph import INPUT
from vidseg.runtime.engines.tensorrt.execution import runtime_of
from vidseg.runtime.engines.tensorrt.library import Library
from vidseg.runtime.errors import EngineError

UNKNOWN = "unknown"

_TYPES = (
    ("uint8", r"uint8"), ("int8", r"int8"), ("int4", r"int4"), ("fp8", r"fp8|float8"), ("bf16", r"bf16|bfloat"),
    ("fp16", r"fp16|float16|half"), ("fp32", r"fp32|float"),
)  # fmt: skip
"""Data types by what the inspector calls them, alone or in the name of a layout; the first that fits."""

_PRODUCT = re.compile(r"conv|gemm|correlation|matrixmultiply|fullyconnected", re.IGNORECASE)
"""Kinds of layers that multiply and add: CaskConvolution, CaskDeconvolution, CublasConvolution, gemm, .."""

_REFORMAT = re.compile(r"^Reformat", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class EngineAudit:
    """A plan, counted.

    Attributes:
        layers: all, each a kernel or a few.
        reformats: those that change nothing but layout or data type.
        convolutions: layers that multiply and add, by the data type that they take; `unknown` where it is not said.
        kinds: all layers, by TensorRT's own names of their kinds; empty where it tells only the layers' names.
    """

    layers: int
    reformats: int
    convolutions: Mapping[str, int]
    kinds: Mapping[str, int]

    def document(self) -> dict[str, Any]:
        """For JSON: the attributes."""
        return asdict(self)

    def text(self) -> str:
        """For a person: one line."""
        if not self.layers:
            return "TensorRT does not say what the plan consists of"
        text = f"{self.layers} layers, {self.reformats} only reformat"
        if not self.kinds:
            return f"{text}; TensorRT tells no more of them than their names"
        types = ", ".join(
            f"{count} of unknown type" if name == UNKNOWN else f"{count} in {name}"
            for name, count in sorted(self.convolutions.items())
        )
        return f"{text}; convolutions: {types or 'none that it names'}"


def audit_engine(text: str) -> EngineAudit:
    """Count a plan.

    Args:
        text: the inspector's JSON, of any release; anything else counts as no layers.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    layers = document.get("Layers") if isinstance(document, dict) else None
    layers = [layer for layer in layers if isinstance(layer, dict | str)] if isinstance(layers, list) else []
    detailed = [layer for layer in layers if isinstance(layer, dict)]
    return EngineAudit(
        layers=len(layers),
        reformats=sum(bool(_REFORMAT.match(_text(layer, "LayerType") or _name(layer))) for layer in layers),
        convolutions=dict(Counter(_data_type(layer) for layer in detailed if _is_product(layer))),
        kinds=dict(Counter(_text(layer, "LayerType") or UNKNOWN for layer in detailed)),
    )


def inspect_plan(library: Library, plan: bytes, name: str, dla_core: int | None = None) -> EngineAudit:
    """Load a plan, ask what it consists of, and let go of it.

    Args:
        library: the TensorRT that built it. There has to be a GPU.
        plan: for this device and release, checked.
        name: of the model, for messages.
        dla_core: where a plan for a DLA runs.

    Raises:
        EngineError: TensorRT refuses the plan.
    """
    module = library.module
    runtime = runtime_of(library, dla_core)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(f"{name}: TensorRT refuses its plan", library.last_error(), "Build it again.")
    inspector, context = engine.create_engine_inspector(), None
    if -1 in tuple(engine.get_tensor_shape(INPUT)):  # it tells data types for a batch only
        context = engine.create_execution_context()
        if context is not None:
            context.set_input_shape(INPUT, tuple(engine.get_tensor_profile_shape(INPUT, 0)[2]))
            inspector.execution_context = context
    text = inspector.get_engine_information(module.LayerInformationFormat.JSON)
    del inspector, context, engine, runtime  # in this order
    return audit_engine(text)


def _text(layer: dict[str, Any] | str, key: str) -> str:
    value = layer.get(key) if isinstance(layer, dict) else None
    return value if isinstance(value, str) else ""


def _name(layer: dict[str, Any] | str) -> str:
    return layer if isinstance(layer, str) else _text(layer, "Name")


def _is_product(layer: dict[str, Any]) -> bool:
    return bool(_PRODUCT.search(_text(layer, "LayerType")) or _PRODUCT.search(_text(layer, "ParameterType")))


def _data_type(layer: dict[str, Any]) -> str:
    """Of the first input; `unknown` where the weights have another one, or nothing is said."""
    inputs = layer.get("Inputs")
    first = inputs[0] if isinstance(inputs, list) and inputs else None
    weights = layer.get("Weights")
    found = {_type_of(first, ("Format/Datatype", "DataType", "Datatype", "Format"))}
    if isinstance(weights, dict) and _text(weights, "Type"):
        found.add(_type_of(weights, ("Type",)))
    return found.pop() if len(found) == 1 else UNKNOWN


def _type_of(tensor: object, keys: tuple[str, ...]) -> str:
    if not isinstance(tensor, dict):
        return UNKNOWN
    for text in (_text(tensor, key).lower() for key in keys):
        for name, pattern in _TYPES:
            if re.search(pattern, text):
                return name
    return UNKNOWN
