"""What is in a bundle, for a person and for a program."""

from __future__ import annotations

from typing import Any

import msgspec

from vidseg.runtime.bundle import Bundle
from vidseg.runtime.manifest import AccuracySpec, InputSpec


def bundle_document(bundle: Bundle) -> dict[str, Any]:
    """The manifest as plain values for JSON, with the size of every member in bytes."""
    document: dict[str, Any] = msgspec.to_builtins(bundle.manifest)
    document["member_bytes"] = {name: len(content) for name, content in bundle.members.items()}
    return document


def bundle_text(bundle: Bundle) -> str:
    """A bundle in some twenty lines."""
    manifest = bundle.manifest
    size = sum(len(content) for content in bundle.members.values())
    lines = [
        f"{bundle.path}  {manifest.task} segmentation, format {manifest.format}, {size / 2**20:.2f} MiB, verified",
        f"input     {_times(manifest.input.size_wh)} uint8 {manifest.input.layout} BGR, fit: {manifest.input.fit}",
        f"          folded in: {_preprocessing(manifest.input)}",
        f"output    {_times(manifest.output.size_wh)} class ids, {manifest.output.ignore_id} is unknown",
        f"classes   {', '.join(f'{number} {spec.name}' for number, spec in enumerate(manifest.output.classes))}",
    ]
    for variant in manifest.variants:
        lines.append(f"variant   {variant.name}: {variant.file}, {variant.precision}, for {', '.join(variant.targets)}")
        if variant.upsampling is not None:
            grid = _times(variant.upsampling.grid_wh)
            lines.append(f"          ends with scores of {grid}; the last upsampling is done sparsely")
        lines += [f"          {engine}: {_accuracy(accuracy)}" for engine, accuracy in variant.accuracy.items()]
    provenance = manifest.provenance
    lines += [
        f"samples   {len(manifest.samples)} frames with their class maps",
        f"made from {provenance.model_name} (sha256 {provenance.model_sha256[:12]}…)",
        f"checked   on {provenance.frames_source} (sha256 {provenance.frames_sha256[:12]}…)",
        f"made with {', '.join(f'{tool} {version}' for tool, version in provenance.tools.items())}",
    ]
    return "\n".join(lines)


def _times(size_wh: tuple[int, int]) -> str:
    return f"{size_wh[0]}x{size_wh[1]}"


def _accuracy(accuracy: AccuracySpec) -> str:
    parts = [f"{accuracy.agreement:.4%} of the pixels as the original's"]
    if accuracy.disagreement is not None:
        parts.append(f"{accuracy.disagreement:.4%} otherwise where that is sure")
    if accuracy.mean_iou is not None:
        parts.append(f"mean IoU {accuracy.mean_iou:.4f}")
    return ", ".join([*parts, f"{accuracy.frames} frames"])


def _preprocessing(spec: InputSpec) -> str:
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (spec.mean, spec.std))
    return f"{spec.color}, (value x {spec.scale:g} - ({mean})) / ({std})"
