"""The commands that make bundles, and what belongs to making them."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from vidseg.export_options import (
    CalibOption,
    FramesOption,
    LabelsOption,
    MaxDisagreementOption,
    ModelOption,
    OutputOption,
    PlanOption,
    RtxOption,
    SizeOption,
    VerifyImagesOption,
    VerifyLabelsOption,
    VerifyMapOption,
    WeightsOption,
)
from vidseg.options import ColorChoice, FitChoice, JsonOption, capabilities_of, numbers_of, size_of
from vidseg.progress import progress_bar, progress_stages
from vidseg.runtime.errors import UsageError


def export(
    model: ModelOption,
    out: Annotated[Path, typer.Option(help="The bundle: X.vidseg makes one file, another name a folder.")],
    weights: WeightsOption = None,
    size: SizeOption = None,
    labels: LabelsOption = None,
    scale: Annotated[str, typer.Option(help="Factor of the 8 bit values; may be a fraction.")] = "1/255",
    mean: Annotated[str, typer.Option(help="Subtracted after scaling: one number, or three with commas.")] = "0",
    std: Annotated[str, typer.Option(help="Divided by, after the mean: one number, or three.")] = "1",
    color: Annotated[ColorChoice, typer.Option(help="Channel order that the model takes.")] = ColorChoice.rgb,
    fit: Annotated[FitChoice, typer.Option(help="How a frame is laid on the input.")] = FitChoice.stretch,
    output: OutputOption = None,
    frames: FramesOption = None,
    samples: Annotated[bool, typer.Option(help="Keep 8 of these frames in the bundle.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    calib: CalibOption = None,
    calib_frames: Annotated[int, typer.Option(min=1, max=10000, help="Frames to calibrate on.")] = 100,
    verify_images: VerifyImagesOption = None,
    verify_labels: VerifyLabelsOption = None,
    verify_map: VerifyMapOption = None,
    verify_ignore: Annotated[int, typer.Option(min=0, max=255, help="Label id to leave out.")] = 255,
    max_miou_drop: Annotated[float, typer.Option(help="Points of mean IoU that INT8 may lose; with labels.")] = 0.5,
    max_class_drop: Annotated[float, typer.Option(help="Points of IoU that any class may lose; with labels.")] = 2.0,
    max_disagreement: MaxDisagreementOption = 0.5,
    plan: PlanOption = None,
    rtx: RtxOption = "",
) -> None:
    """Make a bundle of an ONNX or PyTorch model, and check it against the original pixel by pixel."""
    from vidseg.calibration.gate import Budget
    from vidseg.export.exporter import ExportRequest, export_model
    from vidseg.export.plan import read_plan
    from vidseg.export.quantization import QuantizationRequest
    from vidseg.runtime.cache import user_cache_folder

    quantization = None
    if calib is not None:
        budget = Budget(max_miou_drop=max_miou_drop, max_class_drop=max_class_drop, max_disagreement=max_disagreement)
        quantization = QuantizationRequest(
            frames_uri=calib, frames=calib_frames, images=verify_images, labels=verify_labels, mapping=verify_map,
            ignore=verify_ignore, plan=None if plan is None else read_plan(plan), cache=user_cache_folder(os.environ),
            budget=budget, compute_capabilities=capabilities_of(rtx),
        )  # fmt: skip
    elif plan or rtx or verify_images or verify_labels or verify_map:
        raise UsageError("this is for INT8", "no --calib", "Give --calib VIDEO_OR_FOLDER of the real scene.")
    request = ExportRequest(
        model=model, out=out, weights=weights, size_wh=size_of(size), labels=labels, color=color.value,
        scale=numbers_of("--scale", scale)[0], mean=numbers_of("--mean", mean), std=numbers_of("--std", std),
        fit=fit.value, output=output, frames=frames, samples=samples, overwrite=overwrite, quantization=quantization,
    )  # fmt: skip
    with progress_stages() as stage:
        report = export_model(request, lambda line: print(line, file=sys.stderr), stage)
    for variant, engines in report.accuracy.items():
        for name, accuracy in engines.items():
            shown = f"{accuracy.agreement:.4%} of the pixels as the original's, on {accuracy.frames} frames"
            print(f"{variant} in {name}: {shown}")
    for line in report.quantization:
        print(line)
    if not report.own_frames:
        print("Checked on the rendered street. Give --frames for pictures of your own camera.")
    print(f"Wrote {report.out}")


def lint(
    model: Annotated[Path, typer.Argument(help="An ONNX file with QuantizeLinear and DequantizeLinear.")],
    as_json: JsonOption = False,
) -> None:
    """Check how an ONNX graph is quantized, rule by rule; ends with 1 where an engine would refuse it or differ."""
    from vidseg.export.lint import lint as findings_of
    from vidseg.export.lint import quantized_products
    from vidseg.export.model import check_packages, read_onnx

    check_packages()
    content = read_onnx(model)[0].SerializeToString()
    findings = findings_of(content)
    quantized, total = quantized_products(content)
    if as_json:
        rows = [
            {"level": found.rule.level, "rule": found.rule.name, "tensor": found.tensor, "got": found.got,
             "reason": found.rule.reason}
            for found in findings
        ]  # fmt: skip
        print(json.dumps({"quantized": quantized, "products": total, "findings": rows}, indent=1))
    else:
        for found in findings:
            print(found)
        print(f"{quantized} of {total} convolutions and products are quantized, {len(findings)} findings")
    if any(found.rule.level == "error" for found in findings):
        sys.exit(1)


def record_calib(
    source: Annotated[str, typer.Argument(help="A camera, as /dev/video0, or scene://street.")],
    out: Annotated[Path, typer.Option(help="Folder for the frames; made, or empty.")],
    frames: Annotated[int, typer.Option(min=1, max=10000, help="Different frames to keep.")] = 100,
    seconds: Annotated[float, typer.Option(min=1, help="End after this time with fewer.")] = 300.0,
    interval: Annotated[float, typer.Option(min=0, help="Seconds between two frames, at least.")] = 0.5,
) -> None:
    """Record different frames of a live source, to calibrate on with `vidseg export --calib`."""
    from vidseg.calibration.recording import RecordingOptions, record_frames
    from vidseg.runtime.pipeline.signals import signals_set
    from vidseg.runtime.sources.opening import source_from_uri

    stop = threading.Event()
    with signals_set(stop), progress_bar("frames", frames) as advance:
        recording = record_frames(
            source_from_uri(source), out, RecordingOptions(frames, seconds, interval), stop=stop, progress=advance
        )
    print(f"{recording.counts.kept} frames in {recording.folder} ({recording.ending}): {recording.counts}")
