"""An engine by name, for a variant of a bundle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from vidseg.runtime.bundle import Bundle
from vidseg.runtime.decoding import outputs_of
from vidseg.runtime.engines import Engine
from vidseg.runtime.engines.graph import GraphOptions
from vidseg.runtime.errors import EngineError

if TYPE_CHECKING:
    from vidseg.runtime.overlay import OverlayStyle

EngineName: TypeAlias = Literal["onnxruntime", "openvino"]
"""Those that take a graph as it is, on the CPU."""

AnyEngineName: TypeAlias = EngineName | Literal["tensorrt"]

Progress: TypeAlias = Callable[[float], None]
"""Takes the share that is done, 0..1."""


def nothing_said(_share: float) -> None:
    """A `Progress` that nobody looks at."""


@dataclass(frozen=True, slots=True)
class GpuUse:
    """What an engine on a GPU is opened for; others do not look at it.

    Attributes:
        plans: folder where plans are kept, private to the user; None: nowhere, each start builds.
        max_batch: pictures that may come at once; the engine takes fewer where the graph does, or where that gains
            nothing.
        style: of the pictures that are wanted; None for none.
        cuda_graphs: give the device its work in one call.
        progress: called every now and then while a plan is built, with the share that is done, 0..1, where the library
            tells it. What it raises ends the build.
    """

    plans: Path | None = None
    max_batch: int = 1
    style: OverlayStyle | None = None
    cuda_graphs: bool = False
    progress: Progress = nothing_said


def open_engine(
    bundle: Bundle,
    engine: AnyEngineName = "onnxruntime",
    variant: str = "float",
    *,
    threads: int | None = None,
    confidence: bool = False,
    gpu: GpuUse | None = None,
) -> Engine:
    """Load a variant into an engine.

    Args:
        bundle: what to load.
        engine: which library infers.
        variant: which of the bundle's graphs.
        threads: of the library's pool; None for one a core.
        confidence: predictions have one.
        gpu: for `tensorrt`.

    Raises:
        BundleError: the bundle has no such variant.
        EngineError: the variant is not for that engine, or cannot be loaded.
        DeviceError: there is no GPU, or too little room on it.
    """
    if engine == "tensorrt":
        from vidseg.runtime.engines.tensorrt.opening import open_tensorrt

        return open_tensorrt(bundle, variant, gpu or GpuUse(), confidence=confidence)
    spec = bundle.variant(variant)
    if engine not in spec.targets:
        raise EngineError(
            f"{bundle.path}: variant {variant} is not for {engine}", ", ".join(spec.targets), "Name one of these."
        )
    fetch, decode = outputs_of(spec.upsampling, bundle.manifest.output.size_wh, confidence=confidence)
    options = GraphOptions(f"{bundle.path.name} ({variant})", spec.precision, threads, fetch, decode)
    return open_graph(bundle.members[spec.file], engine, options)


def require_gpu() -> None:
    """Find out that TensorRT cannot be opened here before anything else is.

    Raises:
        DeviceError: there is no GPU.
        EngineError: TensorRT or pycuda is missing.
    """
    from vidseg.runtime.engines.tensorrt.building import this_machine

    this_machine()


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
