"""An engine by name, for a variant of a bundle."""

from __future__ import annotations

from typing import Literal, TypeAlias

from vidseg.runtime.bundle import Bundle
from vidseg.runtime.engines import Engine
from vidseg.runtime.errors import EngineError

EngineName: TypeAlias = Literal["onnxruntime", "openvino"]


def open_engine(bundle: Bundle, engine: EngineName = "onnxruntime", variant: str = "float") -> Engine:
    """Load a variant into an engine.

    Raises:
        BundleError: the bundle has no such variant.
        EngineError: the variant is not for that engine, or cannot be loaded.
    """
    spec = bundle.variant(variant)
    if engine not in spec.targets:
        raise EngineError(
            f"{bundle.path}: variant {variant} is not for {engine}", ", ".join(spec.targets), "Name one of these."
        )
    model = bundle.members[spec.file]
    name = f"{bundle.path.name} ({variant})"
    if engine == "openvino":
        from vidseg.runtime.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(model, name, spec.precision)
    from vidseg.runtime.engines.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(model, name, spec.precision)
