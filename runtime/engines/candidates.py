"""Which engines and variants of a bundle could serve on this machine, and whether they say what they should."""

from __future__ import annotations

import importlib.util
import logging
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from vidseg.runtime.bundle import Bundle
from vidseg.runtime.engines import Engine, predict
from vidseg.runtime.engines.opening import AnyEngineName, EngineName, GpuUse, open_engine
from vidseg.runtime.errors import DeviceError

log = logging.getLogger(__name__)

ENGINES: tuple[EngineName, ...] = ("onnxruntime", "openvino")

MIN_AGREEMENT = 0.999
"""Share of the samples' pixels that a float variant has to reproduce here."""

MAX_HALF_LOSS = 0.001
"""By how much less float16 may reproduce on a GPU than computed as it is written: sums are in another order there."""

MAX_LOSS = 0.01
"""By how much less a quantized variant may reproduce here than where it was exported: kernels round otherwise, and a
processor whose 8-bit sums overflow loses much more."""


@dataclass(frozen=True, slots=True, order=True)
class Candidate:
    """An engine with a variant. `threads` None: one a core."""

    engine: AnyEngineName
    variant: str
    threads: int | None = None

    def __str__(self) -> str:
        return f"{self.engine} {self.variant}" + (f", {self.threads} threads" if self.threads else "")

    def open(self, bundle: Bundle, *, confidence: bool = False, gpu: GpuUse | None = None) -> Engine:
        """Load it; see `open_engine`."""
        return open_engine(bundle, self.engine, self.variant, threads=self.threads, confidence=confidence, gpu=gpu)


def installed_engines() -> list[EngineName]:
    """The engines on the CPU whose libraries are here."""
    return [name for name in ENGINES if importlib.util.find_spec(name)]


def candidates_of(bundle: Bundle, threads: Iterable[int | None] = (None,)) -> list[Candidate]:
    """Every variant in every engine that is installed here; first ONNX Runtime's, which is there always and at once."""
    on_cpu = [
        Candidate(engine, variant.name, count)
        for engine in installed_engines()
        for variant in bundle.manifest.variants
        if engine in variant.targets
        for count in threads
    ]
    return on_cpu + gpu_candidates(bundle)


def gpu_candidates(bundle: Bundle) -> list[Candidate]:
    """Half precision, and INT8 where the bundle has it, where TensorRT can run here; none elsewhere.

    Single precision too, where the bundle has no graph in half: some releases make no other plan of it.
    """
    if not gpu_usable():
        return []
    names = {variant.name for variant in bundle.manifest.variants}
    wanted = ["fp16", *(["int8"] if "int8" in names else []), *([] if "fp16" in names else ["float"])]
    return [Candidate("tensorrt", variant) for variant in wanted]


def gpu_usable() -> bool:
    """True where there is a GPU whose driver works, TensorRT and pycuda. Imports none of them."""
    from vidseg.runtime.engines.tensorrt import libcuda, library
    from vidseg.runtime.engines.tensorrt.device import device_facts

    if not library.installed() or importlib.util.find_spec("pycuda") is None or libcuda.available() is not None:
        return False
    try:
        device_facts()
    except DeviceError as error:
        log.warning("the GPU is not used: %s", error)
        return False
    return True


def sample_agreement(bundle: Bundle, engine: Engine) -> float:
    """Share of the pixels of the bundle's samples that get the class that they should; 1.0 where there are none.

    Raises:
        EngineError: inference failed.
    """
    equal = [float((predict(engine, image).class_map == class_map).mean()) for image, class_map in bundle.samples()]
    return sum(equal) / len(equal) if equal else 1.0


def min_agreement(bundle: Bundle, candidate: Candidate) -> float:
    """Share of the samples' pixels that a candidate has to reproduce, 0..1."""
    accuracy = {variant.name: variant.accuracy for variant in bundle.manifest.variants}.get(candidate.variant, {})
    on_gpu = candidate.engine == "tensorrt"
    found = accuracy.get("exact" if on_gpu else candidate.engine)
    if found is not None and found.samples is not None:
        return found.samples - MAX_LOSS
    return min(MIN_AGREEMENT, found.agreement - MAX_HALF_LOSS) if found is not None and on_gpu else MIN_AGREEMENT


def machine_fingerprint() -> dict[str, object]:
    """What a measured choice depends on: library versions, CPU model and the cores that this process may use."""
    found: dict[str, object] = {
        "libraries": {engine: version(engine) for engine in installed_engines()},
        "cpu": cpu_model(),
        "cores": sorted(os.sched_getaffinity(0)),
    }
    if gpu_usable():
        from vidseg.runtime.engines.tensorrt.device import device_facts
        from vidseg.runtime.engines.tensorrt.library import installed_files

        found["gpu"] = asdict(device_facts())
        found["tensorrt"] = installed_files()
    return found


def cpu_model() -> str:
    """The processor's name as Linux tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.machine()
