"""What this machine has, and what is missing: for `vidseg doctor`, and for reports of faults."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

from vidseg.runtime.cache import private_folder, user_cache_folder
from vidseg.runtime.engines.candidates import Candidate, cpu_model, installed_engines, sample_agreement
from vidseg.runtime.finding import Finding, finding_of
from vidseg.runtime.nvidia import nvidia_findings

ROOT = Path("/")


def examine(environment: Mapping[str, str], root: Path = ROOT) -> list[Finding]:
    """Look at everything; takes a few seconds, and changes nothing but the cache folder.

    Args:
        environment: for the place of the cache folder, as `os.environ`.
        root: of the file system, for what a Jetson says of itself.
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
    return [*(finding_of(subject, check) for subject, check in checks.items()), *nvidia_findings(environment, root)]


def doctor_text(findings: list[Finding]) -> str:
    """A line for each finding, and one for what to do about it."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.verdict:<8} {finding.subject:<12} {finding.text}")
        if finding.fix:
            lines.append(f"{'':<21} -> {finding.fix}")
    return "\n".join(lines)


def doctor_document(findings: list[Finding]) -> list[dict[str, Any]]:
    """The same as plain values for JSON."""
    return [asdict(finding) for finding in findings]


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
    text = f"PyAV {version('av')}, records with {encoder}"
    if encoder == "libx264":
        return Finding("video", "ok", text)
    return Finding(
        "video", "missing", f"{text}, in lower quality", "Its own wheel has it: pip install --force-reinstall av"
    )


def _window() -> Finding:
    from vidseg.runtime.sinks.window import obstacle_to_window

    obstacle = obstacle_to_window()
    if not obstacle:
        return Finding("window", "ok", "can be opened")
    return Finding("window", "missing", obstacle, "Only window:// needs one, and an opencv-python with windows.")


def _cameras() -> Finding:
    from vidseg.runtime.sources.cameras import list_cameras

    found = [f"{camera.stable_id or camera.path} ({camera.name})" for camera in list_cameras()]
    if found:
        return Finding("cameras", "ok", ", ".join(found))
    return Finding("cameras", "missing", "none", "Plug one in; start containers with --device /dev/video0.")


def _export() -> Finding:
    missing = [name for name in ("onnx", "onnx_ir", "onnxslim") if importlib.util.find_spec(name) is None]
    if missing:
        return Finding("export", "missing", f"no {', '.join(missing)}", 'pip install "vidseg[export]"')
    return Finding("export", "ok", f"onnx {version('onnx')}")


def _demo(candidate: Candidate) -> Finding:
    """Run the demo model where the engine is installed, and compare it with its samples."""
    from vidseg.runtime.bundle import open_bundle
    from vidseg.runtime.pipeline.opening import demo_bundle_path

    if candidate.engine not in installed_engines():
        return Finding(candidate.engine, "missing", "is not installed", f"pip install {candidate.engine}")
    bundle = open_bundle(demo_bundle_path())
    with candidate.open(bundle) as engine:
        started = perf_counter()
        agreement = sample_agreement(bundle, engine)
        frame_ms = (perf_counter() - started) * 1e3 / len(bundle.manifest.samples)
        text = f"{engine.device}: demo model right in {agreement:.3%} of the pixels, {frame_ms:.0f} ms a frame"
    if agreement > 0.999:
        return Finding(candidate.engine, "ok", text)
    return Finding(candidate.engine, "broken", text, "Install another release of it, or name another with --engine.")
