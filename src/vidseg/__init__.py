"""Live video segmentation on edge devices.

The names below are loaded when they are first used: `import vidseg` itself loads neither NumPy nor OpenCV.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidseg.calibration.evaluation import evaluate as evaluate
    from vidseg.export.exporter import ExportRequest as ExportRequest
    from vidseg.export.exporter import export_model as export_model
    from vidseg.export.quantization import QuantizationRequest as QuantizationRequest
    from vidseg.runtime.bundle import Bundle as Bundle
    from vidseg.runtime.bundle import open_bundle as open_bundle
    from vidseg.runtime.engines.choice import choose_engine as choose_engine
    from vidseg.runtime.engines.opening import open_engine as open_engine
    from vidseg.runtime.errors import VidsegError as VidsegError
    from vidseg.runtime.frame import Frame as Frame
    from vidseg.runtime.frame import Segmentation as Segmentation
    from vidseg.runtime.frame import SourceStatus as SourceStatus
    from vidseg.runtime.overlay import Overlay as Overlay
    from vidseg.runtime.overlay import OverlayStyle as OverlayStyle
    from vidseg.runtime.pipeline import Pipeline as Pipeline
    from vidseg.runtime.pipeline.opening import OpenOptions as OpenOptions
    from vidseg.runtime.pipeline.opening import demo_bundle_path as demo_bundle_path
    from vidseg.runtime.pipeline.opening import open_pipeline as open_pipeline
    from vidseg.runtime.segmenter import Segmenter as Segmenter
    from vidseg.runtime.sinks import Sink as Sink
    from vidseg.runtime.sources import Source as Source
    from vidseg.runtime.sources.street.render import Street as Street

_MODULES = {
    "Bundle": "vidseg.runtime.bundle",
    "ExportRequest": "vidseg.export.exporter",
    "Frame": "vidseg.runtime.frame",
    "OpenOptions": "vidseg.runtime.pipeline.opening",
    "Overlay": "vidseg.runtime.overlay",
    "OverlayStyle": "vidseg.runtime.overlay",
    "Pipeline": "vidseg.runtime.pipeline",
    "QuantizationRequest": "vidseg.export.quantization",
    "Segmentation": "vidseg.runtime.frame",
    "Segmenter": "vidseg.runtime.segmenter",
    "Sink": "vidseg.runtime.sinks",
    "Source": "vidseg.runtime.sources",
    "SourceStatus": "vidseg.runtime.frame",
    "Street": "vidseg.runtime.sources.street.render",
    "VidsegError": "vidseg.runtime.errors",
    "choose_engine": "vidseg.runtime.engines.choice",
    "demo_bundle_path": "vidseg.runtime.pipeline.opening",
    "evaluate": "vidseg.calibration.evaluation",
    "export_model": "vidseg.export.exporter",
    "open_bundle": "vidseg.runtime.bundle",
    "open_engine": "vidseg.runtime.engines.opening",
    "open_pipeline": "vidseg.runtime.pipeline.opening",
}

__all__ = [
    "Bundle",
    "ExportRequest",
    "Frame",
    "OpenOptions",
    "Overlay",
    "OverlayStyle",
    "Pipeline",
    "QuantizationRequest",
    "Segmentation",
    "Segmenter",
    "Sink",
    "Source",
    "SourceStatus",
    "Street",
    "VidsegError",
    "choose_engine",
    "demo_bundle_path",
    "evaluate",
    "export_model",
    "open_bundle",
    "open_engine",
    "open_pipeline",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'vidseg' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
