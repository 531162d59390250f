"""Building plans for the machine at hand, and keeping them."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace

import msgspec

from vidseg.runtime.bundle import Bundle
from vidseg.runtime.engines.tensorrt.build_process import BuildOptions, BuiltPlan, run_build
from vidseg.runtime.engines.tensorrt.device import DeviceFacts, device_facts
from vidseg.runtime.engines.tensorrt.library import Library, find_library
from vidseg.runtime.engines.tensorrt.lowering import Lowering, lowering_of
from vidseg.runtime.engines.tensorrt.memory import check_memory
from vidseg.runtime.engines.tensorrt.onnx_bytes import has_free_batch
from vidseg.runtime.engines.tensorrt.plan_cache import PlanCache, PlanKey
from vidseg.runtime.engines.tensorrt.pycuda_driver import PycudaDriver
from vidseg.runtime.engines.tensorrt.request import BuildRequest
from vidseg.runtime.engines.tensorrt.settings import BuildSettings, Precision
from vidseg.runtime.engines.tensorrt.sidecar import PlanFacts, plan_facts
from vidseg.runtime.errors import EngineError

log = logging.getLogger(__name__)

REVISION = 1
"""Grows where the same request makes another plan, so that older ones are not taken."""

SHARED_WORKSPACE_MIB = 1024
"""For kernels where a GPU shares its memory with everything else and nothing was asked for: else TensorRT takes all."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a plan is built, and for which GPU."""

    library: Library
    device: DeviceFacts

    @property
    def facts(self) -> PlanFacts:
        """As a plan's sidecar has it."""
        return plan_facts(self.library, self.device)


def this_machine() -> Machine:
    """The machine at hand, and that it has all that plans need, before minutes are spent.

    Raises:
        DeviceError: there is no GPU.
        EngineError: TensorRT or pycuda is missing.
    """
    PycudaDriver()
    return Machine(find_library(), device_facts())


def plan_of(
    bundle: Bundle, settings: BuildSettings, machine: Machine, cache: PlanCache, options: BuildOptions | None = None
) -> bytes:
    """A plan from the cache, or built now and kept.

    Args:
        bundle: the model.
        settings: how it is built.
        machine: where, and for which GPU.
        cache: for this and the next start.
        options: how the build goes, if there is one.

    Raises:
        EngineError: the bundle has no graph for it, or TensorRT makes no plan.
    """
    options = options or BuildOptions()
    key = plan_key(bundle, settings, machine, options.outputs)
    owner = f"{machine.library.name} {machine.library.version} {machine.device.uuid}"

    def build() -> bytes:
        log.warning(
            "%s: building a plan in %s for %s with %s; takes minutes, once",
            bundle.path.name, settings.precision, machine.device.name, machine.library.title,
        )  # fmt: skip
        built = build_plan(bundle, settings, machine, options, cache.timing(owner))
        if built.timing:
            cache.keep_timing(owner, built.timing)
        return built.plan

    return cache.plan(key, machine.facts, build, lambda: options.progress(0.0))


def plan_key(bundle: Bundle, settings: BuildSettings, machine: Machine, outputs: tuple[str, ...]) -> PlanKey:
    """The place of a plan in the cache.

    Raises:
        EngineError: the bundle has no graph for it.
    """
    lowering = lowering_of(bundle, settings, machine.library.abilities)
    extra = {
        "revision": REVISION,
        "library": machine.library.name,
        "typing": lowering.typing,
        "flags": list(lowering.flags),
        "ranges": msgspec.to_builtins(lowering.ranges),
        "outputs": list(outputs),
    }
    return PlanKey(bundle.manifest.members[lowering.file], settings, machine.device.uuid, extra)


def settings_of(
    bundle: Bundle, precision: Precision, machine: Machine, cache: PlanCache | None, max_batch: int
) -> BuildSettings:
    """How a plan is built where the caller does not say: as `keep_settings` was told last, else for the batch.

    What this release of TensorRT cannot do is left out, with a warning.

    Args:
        bundle: the model.
        precision: what it computes in.
        machine: where, and for which GPU.
        cache: keeps what was told; None for none.
        max_batch: pictures that may come at once; the plan takes fewer where the graph does.

    Raises:
        EngineError: the bundle has no graph for it.
    """
    told = (cache.settings(_owner(bundle, precision)) if cache else None) or BuildSettings(precision=precision)
    try:
        lowering = lowering_of(bundle, told, machine.library.abilities)
    except EngineError as error:
        if told == BuildSettings(precision=precision):
            raise
        log.warning("not as `vidseg build` was told: %s Run it again.", error)
        told = BuildSettings(precision=precision)
        lowering = lowering_of(bundle, told, machine.library.abilities)
    if told.dla_core is not None or not has_free_batch(bundle.members[lowering.file]):
        return told
    return replace(told, max_batch=max(told.max_batch, max_batch))


def keep_settings(bundle: Bundle, settings: BuildSettings, cache: PlanCache) -> None:
    """Build the plans of a bundle in this precision like this from now on."""
    cache.keep_settings(_owner(bundle, settings.precision), settings)


def forget_settings(bundle: Bundle, precision: Precision, cache: PlanCache) -> None:
    """Build them as if nothing had been told."""
    cache.keep_settings(_owner(bundle, precision), None)


def _owner(bundle: Bundle, precision: Precision) -> str:
    """Of settings: a bundle by its content, and a precision."""
    return json.dumps([dict(bundle.manifest.members), precision], sort_keys=True)


def build_plan(
    bundle: Bundle,
    settings: BuildSettings,
    machine: Machine,
    options: BuildOptions | None = None,
    timing: bytes = b"",
) -> BuiltPlan:
    """Build a plan, in a process of its own.

    Args:
        bundle: the model.
        settings: how it is built.
        machine: where, and for which GPU.
        options: how the build goes.
        timing: what an earlier build has kept.

    Raises:
        EngineError: the bundle has no graph for it; TensorRT refuses it, crashes, runs out of memory or of time.
    """
    options = options or BuildOptions()
    lowering = lowering_of(bundle, settings, machine.library.abilities)
    graph = bundle.members[lowering.file]
    name = f"{bundle.path.name} ({lowering.variant})"
    check_memory(name, len(graph), machine.device)
    return run_build(name, _request(settings, machine, lowering, options), graph, timing, options)


def _request(settings: BuildSettings, machine: Machine, lowering: Lowering, options: BuildOptions) -> BuildRequest:
    if machine.device.integrated and settings.workspace_mib is None:
        settings = replace(settings, workspace_mib=SHARED_WORKSPACE_MIB)
    return BuildRequest(
        module=machine.library.name,
        settings=settings,
        typing=lowering.typing,
        flags=lowering.flags,
        ranges=lowering.ranges,
        outputs=options.outputs,
        compute_capability=machine.device.compute_capability,
    )
