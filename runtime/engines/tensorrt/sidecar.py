"""What stands beside a kept plan: the machine that it was built on, and its checksum."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from vidseg.runtime.engines.tensorrt.device import DeviceFacts
from vidseg.runtime.engines.tensorrt.library import Library
from vidseg.runtime.engines.tensorrt.settings import BuildSettings
from vidseg.runtime.manifest import UNPRINTABLE, Sha256

AMPERE = (8, 0)
"""The oldest compute capability for which plans are made that other GPUs take."""

Text = Annotated[str, msgspec.Meta(max_length=200, pattern=rf"^[^{UNPRINTABLE}]*\Z")]
Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


class PlanFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The machine that a plan was built on, or is to run on.

    Attributes:
        library: the module, such as `tensorrt`.
        version: its.
        driver: its release, and the newest CUDA that it serves.
        gpu: its name.
        compute_capability: of the GPU.
        power_mode: of a Jetson; a plan's kernels are the fastest in the mode that they were timed in.
    """

    library: Text
    version: Text
    driver: Text
    gpu: Text
    compute_capability: tuple[Count, Count]
    power_mode: Text


class Sidecar(PlanFacts, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that is kept beside a plan.

    Attributes:
        name: of the plan's key.
        recipe: the same without the GPU.
        plan_sha256, plan_bytes: of the plan.
        build_s: how long it took.
    """

    name: Sha256
    recipe: Sha256
    plan_sha256: Sha256
    plan_bytes: Annotated[int, msgspec.Meta(ge=1, le=1 << 40)]
    build_s: Annotated[float, msgspec.Meta(ge=0, le=1e6)]

    @property
    def again(self) -> str:
        """That it is built again, and how long that will take."""
        minutes = round(self.build_s / 60)
        return f"It is built again now ({f'about {minutes} min' if minutes else 'less than a minute'})."


def plan_facts(library: Library, device: DeviceFacts) -> PlanFacts:
    """The machine at hand."""
    return PlanFacts(
        library=library.name,
        version=library.version,
        driver=device.driver,
        gpu=device.name,
        compute_capability=device.compute_capability,
        power_mode=device.power_mode,
    )


def read_sidecar(content: bytes | None) -> Sidecar | None:
    """A sidecar from a file's content, which may be anything; None where it is none."""
    try:
        return None if content is None else msgspec.json.decode(content, type=Sidecar)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None


def mismatch(built: PlanFacts, here: PlanFacts, settings: BuildSettings) -> str:
    """The first field in which a plan does not fit this machine, as a sentence; "" where it fits."""
    for name, word in _WORDS.items():
        then, now = getattr(built, name), getattr(here, name)
        if then != now and not _is_meant_for(name, then, now, settings):
            shown = [_shown(name, value) for value in (then, now)]
            return f"The plan was built with {word} {shown[0]}; this machine has {shown[1]}."
    return ""


_WORDS = {
    "library": "the library", "version": "TensorRT", "driver": "the driver", "gpu": "the GPU",
    "compute_capability": "compute capability", "power_mode": "power mode",
}  # fmt: skip


def _is_meant_for(name: str, then: Any, now: Any, settings: BuildSettings) -> bool:
    """True where a field may differ, because the plan was built for that."""
    if name == "version" and settings.version_compatible:
        old, new = (_release(text) for text in (then, now))
        return old[:1] == new[:1] and old <= new
    if name == "compute_capability" and settings.hardware_compatible:
        return bool(min(tuple(then), tuple(now)) >= AMPERE)
    return name in {"gpu", "power_mode"} and settings.hardware_compatible


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def _shown(name: str, value: Any) -> str:
    if name == "compute_capability":
        return f"{value[0]}.{value[1]}"
    return str(value) or "none"
