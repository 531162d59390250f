"""A bundle in TensorRT on this machine's GPU: a plan that is kept, or built now, and running."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from vidseg.runtime.bundle import Bundle
from vidseg.runtime.decoding import CLASS_MAP, CONFIDENCE
from vidseg.runtime.engines.opening import GpuUse
from vidseg.runtime.engines.tensorrt.build_process import BuildOptions
from vidseg.runtime.engines.tensorrt.building import build_plan, plan_key, plan_of, settings_of, this_machine
from vidseg.runtime.engines.tensorrt.engine import TensorRtEngine, TensorRtOptions
from vidseg.runtime.engines.tensorrt.execution import PlanRefusedError
from vidseg.runtime.engines.tensorrt.plan_cache import plan_cache
from vidseg.runtime.engines.tensorrt.pycuda_driver import PycudaDriver
from vidseg.runtime.engines.tensorrt.settings import BuildSettings, Precision
from vidseg.runtime.engines.tensorrt.tables import Look, look_of
from vidseg.runtime.errors import EngineError

log = logging.getLogger(__name__)

PRECISIONS: Mapping[str, Precision] = {"float": "fp32", "fp16": "fp16", "int8": "int8"}
"""What plans of a variant compute in."""


def open_tensorrt(
    bundle: Bundle,
    variant: str = "fp16",
    gpu: GpuUse | None = None,
    *,
    confidence: bool = False,
    settings: BuildSettings | None = None,
) -> TensorRtEngine:
    """Open a bundle. Takes minutes where no plan is kept that fits this machine.

    Args:
        bundle: the model.
        variant: `float`, `fp16` or `int8`. Which of the bundle's graphs that takes depends on the release of TensorRT.
        gpu: what the engine is for.
        confidence: predictions have one.
        settings: how the plan is built; None: as `vidseg build` was told last, else for what the engine is for.

    Raises:
        DeviceError: there is no GPU, or too little room on it.
        EngineError: TensorRT or pycuda is missing, the bundle has no such graph, or TensorRT makes no plan of it.
    """
    gpu = gpu or GpuUse()
    if variant not in PRECISIONS:
        raise EngineError(
            f"{bundle.path}: TensorRT takes no variant {variant} by its name", "", f"Name {', '.join(PRECISIONS)}."
        )
    machine = this_machine()
    cache = None if gpu.plans is None else plan_cache(gpu.plans)
    settings = settings or settings_of(bundle, PRECISIONS[variant], machine, cache, gpu.max_batch)
    outputs = (CLASS_MAP, CONFIDENCE) if confidence else (CLASS_MAP,)
    build = BuildOptions(outputs, gpu.progress)
    running = TensorRtOptions(
        name=f"{bundle.path.name} ({variant})",
        precision=settings.precision,
        device=f"{machine.device.name} (TensorRT {machine.library.version})",
        fetch=outputs,
        cuda_graphs=gpu.cuda_graphs,
        look=_look(bundle, gpu),
        dla_core=settings.dla_core,
    )
    if cache is None:
        plan = build_plan(bundle, settings, machine, build).plan
        return TensorRtEngine(plan, machine.library, PycudaDriver(), running)
    try:
        return TensorRtEngine(
            plan_of(bundle, settings, machine, cache, build), machine.library, PycudaDriver(), running
        )
    except PlanRefusedError as error:
        log.warning("%s It is built again now.", error)
        cache.forget(plan_key(bundle, settings, machine, outputs))
    return TensorRtEngine(plan_of(bundle, settings, machine, cache, build), machine.library, PycudaDriver(), running)


def _look(bundle: Bundle, gpu: GpuUse) -> Look | None:
    """How results are drawn on the GPU, where pictures are wanted; an outline is drawn over that, on the CPU."""
    return None if gpu.style is None else look_of(bundle.manifest.output.classes, gpu.style)
