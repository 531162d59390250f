"""An engine by name, for a variant of a bundle."""

from __future__ import annotations

from typing import Literal, TypeAlias

from vidseg.runtime.bundle import Bundle
from vidseg.runtime.decoding import outputs_of
from vidseg.runtime.engines import Engine
from vidseg.runtime.engines.graph import GraphOptions
from vidseg.runtime.errors import EngineError

EngineName: TypeAlias = Literal["onnxruntime", "openvino"]


def open_engine(
    bundle: Bundle,
    engine: EngineName = "onnxruntime",
    variant: str = "float",
    *,
    threads: int | None = None,
    confidence: bool = False,
) -> Engine:
    """Load a variant into an engine.

    Args:
        bundle: what to load.
        engine: which library infers.
        variant: which of the bundle's graphs.
        threads: of the library's pool; None for one a core.
        confidence: predictions have one.

    Raises:
        BundleError: the bundle has no such variant.
        EngineError: the variant is not for that engine, or cannot be loaded.
    """
    spec = bundle.variant(variant)
    if engine not in spec.targets:
        raise EngineError(
            f"{bundle.path}: variant {variant} is not for {engine}", ", ".join(spec.targets), "Name one of these."
        )
    fetch, decode = outputs_of(spec.upsampling, bundle.manifest.output.size_wh, confidence=confidence)
    options = GraphOptions(f"{bundle.path.name} ({variant})", spec.precision, threads, fetch, decode)
    return open_graph(bundle.members[spec.file], engine, options)


def open_graph(model: bytes, engine: EngineName, options: GraphOptions) -> Engine:
    """Load a serialized ONNX graph into an engine.

    Raises:
        EngineError: the library is missing, or refuses the graph.
    """
    if engine == "openvino":
        from vidseg.runtime.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(model, options)
    from vidseg.runtime.engines.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(model, options)
