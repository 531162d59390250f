"""What this machine has, and what is missing: for `vidseg doctor`, and for reports of faults."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from time import perf_counter
from typing import Any, Literal, TypeAlias

from vidseg.runtime.cache import private_folder, user_cache_folder
from vidseg.runtime.engines.candidates import Candidate, cpu_model, installed_engines, sample_agreement
from vidseg.runtime.errors import VidsegError

Verdict: TypeAlias = Literal["ok", "missing", "broken"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `missing` is something optional; `broken` has to be mended."""

    subject: str
    verdict: Verdict
    text: str


def examine(environment: Mapping[str, str]) -> list[Finding]:
    """Look at everything; takes a second or two, and changes nothing but the cache folder.

    Args:
        environment: for the place of the cache folder, as `os.environ`.
    """
    checks: dict[str, Callable[[], Finding | str]] = {
        "vidseg": lambda: f"{version('vidseg')}, Python {platform.python_version()} in {sys.prefix}",
        "machine": _machine,
        "libraries": _libraries,
        "video": _video,
        "window": _window,
        "cameras": _cameras,
        "export": _export,
        "cache": lambda: str(private_folder(user_cache_folder(environment))),
        "onnxruntime": lambda: _demo(Candidate("onnxruntime", "float")),
        "openvino": lambda: _demo(Candidate("openvino", "float")),
    }
    return [_finding(subject, check) for subject, check in checks.items()]


def doctor_text(findings: list[Finding]) -> str:
    """A line for each finding."""
    return "\n".join(f"{finding.verdict:<8} {finding.subject:<12} {finding.text}" for finding in findings)


def doctor_document(findings: list[Finding]) -> list[dict[str, Any]]:
    """The same as plain values for JSON."""
    return [asdict(finding) for finding in findings]


def _finding(subject: str, check: Callable[[], Finding | str]) -> Finding:
    try:
        found = check()
    except (VidsegError, ImportError, PackageNotFoundError, OSError) as error:
        return Finding(subject, "broken", str(error))
    return found if isinstance(found, Finding) else Finding(subject, "ok", found)


def _machine() -> str:
    cores = f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} cores"
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{platform.system()} {platform.machine()}, {cpu_model()}, {cores}, {memory_gib:.1f} GiB"


def _libraries() -> str:
    import cv2

    return f"NumPy {version('numpy')}, OpenCV {cv2.__version__}"


def _video() -> Finding:
    from vidseg.runtime.sinks.mp4 import available_encoder

    encoder, _ = available_encoder()
    verdict: Verdict = "ok" if encoder == "libx264" else "missing"
    return Finding("video", verdict, f"PyAV {version('av')}, records with {encoder}")


def _window() -> Finding:
    from vidseg.runtime.sinks.window import obstacle_to_window

    obstacle = obstacle_to_window()
    return Finding("window", "missing" if obstacle else "ok", obstacle or "can be opened")


def _cameras() -> Finding:
    from vidseg.runtime.sources.cameras import list_cameras

    found = [f"{camera.stable_id or camera.path} ({camera.name})" for camera in list_cameras()]
    return Finding("cameras", "ok" if found else "missing", ", ".join(found) or "none")


def _export() -> Finding:
    missing = [name for name in ("onnx", "onnx_ir", "onnxslim") if importlib.util.find_spec(name) is None]
    text = f"no {', '.join(missing)}: pip install 'vidseg[export]'" if missing else f"onnx {version('onnx')}"
    return Finding("export", "missing" if missing else "ok", text)


def _demo(candidate: Candidate) -> Finding:
    """Run the demo model where the engine is installed, and compare it with its samples."""
    from vidseg.runtime.bundle import open_bundle
    from vidseg.runtime.pipeline.opening import demo_bundle_path

    if candidate.engine not in installed_engines():
        return Finding(candidate.engine, "missing", f"pip install 'vidseg[{candidate.engine}]'")
    bundle = open_bundle(demo_bundle_path())
    with candidate.open(bundle) as engine:
        started = perf_counter()
        agreement = sample_agreement(bundle, engine)
        frame_ms = (perf_counter() - started) * 1e3 / len(bundle.manifest.samples)
        text = f"{engine.device}: demo model right in {agreement:.3%} of the pixels, {frame_ms:.0f} ms a frame"
    return Finding(candidate.engine, "ok" if agreement > 0.999 else "broken", text)
