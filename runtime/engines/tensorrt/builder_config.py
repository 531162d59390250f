"""TensorRT's builder, set as a user wants it."""

from __future__ import annotations

from typing import Any

from vidseg.runtime.engines.tensorrt.library import Library
from vidseg.runtime.engines.tensorrt.request import BuildRequest, NetworkError

_MIB = 1 << 20


def configure(library: Library, builder: Any, config: Any, request: BuildRequest) -> None:
    """Set all that is the same for every graph.

    Raises:
        NetworkError: this release or device does not know a setting.
    """
    module, abilities, settings = library.module, library.abilities, request.settings
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED  # for the audit
    for name in request.flags:
        config.set_flag(getattr(module.BuilderFlag, name))
    if hasattr(config, "max_aux_streams"):
        config.max_aux_streams = 0  # batches overlap each other instead
    if settings.workspace_mib is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, settings.workspace_mib * _MIB)
    if settings.tactic_sources is not None:
        config.set_tactic_sources(_sources(module, settings.tactic_sources))
    if settings.refit:
        config.set_flag(module.BuilderFlag.REFIT)
    if settings.optimization_level is not None:
        _need(abilities.optimization_level, "optimization levels")
        config.builder_optimization_level = settings.optimization_level
    if settings.version_compatible:
        _need(abilities.version_compatible, "version-compatible plans")
        config.set_flag(module.BuilderFlag.VERSION_COMPATIBLE)
    if settings.hardware_compatible:
        _need(abilities.hardware_compatible, "hardware-compatible plans")
        config.hardware_compatibility_level = module.HardwareCompatibilityLevel.AMPERE_PLUS
    if settings.dla_core is not None:
        _use_dla(module, builder, config, settings.dla_core)


def _need(offered: bool, what: str) -> None:
    if not offered:
        raise NetworkError(f"this TensorRT does not know {what}", "", "Leave the setting out, or update TensorRT.")


def _sources(module: Any, names: tuple[str, ...]) -> int:
    """The tactic sources as a mask of bits."""
    known = module.TacticSource.__members__
    unknown = [name for name in names if name not in known]
    if unknown:
        raise NetworkError(
            "this TensorRT has no such tactic source", unknown[0], f"Choose of {', '.join(sorted(known))}."
        )
    mask = 0
    for name in names:
        mask |= 1 << int(known[name])
    return mask


def _use_dla(module: Any, builder: Any, config: Any, core: int) -> None:
    if core >= builder.num_DLA_cores:
        raise NetworkError(
            f"there is no DLA core {core}", f"this device has {builder.num_DLA_cores}", "Leave out the DLA."
        )
    config.default_device_type = module.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(module.BuilderFlag.GPU_FALLBACK)


def name_target(module: Any, config: Any, compute_capability: tuple[int, int]) -> None:
    """Name the GPU to a library that builds ahead of time.

    Raises:
        NetworkError: it does not build for that one.
    """
    kinds = module.ComputeCapability
    major, minor = compute_capability
    wanted = getattr(kinds, f"SM{major}{minor}", None)
    if wanted is None:
        known = ", ".join(name.removeprefix("SM") for name in kinds.__members__ if name.startswith("SM"))
        raise NetworkError(
            "this TensorRT-RTX does not build for the GPU", f"compute capability {major}.{minor}; it knows {known}",
            'Install TensorRT: pip install "vidseg[tensorrt]".',
        )  # fmt: skip
    config.num_compute_capabilities = 1
    config.set_compute_capability(wanted, 0)


def use_timing_cache(config: Any, content: bytes) -> Any:
    """The timing cache, in use; an empty one where the kept one is another release's or device's."""
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache
