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
    from vidseg.runtime.bundle import Bundle as Bundle
    from vidseg.runtime.bundle import open_bundle as open_bundle
    from vidseg.runtime.engines.opening import open_engine as open_engine
    from vidseg.runtime.errors import VidsegError as VidsegError
    from vidseg.runtime.frame import Frame as Frame
    from vidseg.runtime.frame import Segmentation as Segmentation
    from vidseg.runtime.overlay import Overlay as Overlay
    from vidseg.runtime.pipeline import Pipeline as Pipeline
    from vidseg.runtime.pipeline.opening import open_pipeline as open_pipeline

_MODULES = {
    "Bundle": "vidseg.runtime.bundle",
    "ExportRequest": "vidseg.export.exporter",
    "Frame": "vidseg.runtime.frame",
    "Overlay": "vidseg.runtime.overlay",
    "Pipeline": "vidseg.runtime.pipeline",
    "Segmentation": "vidseg.runtime.frame",
    "VidsegError": "vidseg.runtime.errors",
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
    "Overlay",
    "Pipeline",
    "Segmentation",
    "VidsegError",
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
