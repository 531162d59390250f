"""The commands that make bundles, and what belongs to making them."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidseg.export_options import (
    CalibFramesOption,
    CalibOption,
    DlaOption,
    FramesOption,
    LabelsOption,
    MaxClassDropOption,
    MaxDisagreementOption,
    MaxMiouDropOption,
    ModelOption,
    OutputOption,
    PlanOption,
    RtxOption,
    SizeOption,
    VerifyIgnoreOption,
    VerifyImagesOption,
    VerifyLabelsOption,
    VerifyMapOption,
    WeightsOption,
    check_int8_options,
    without_none,
)
from vidseg.options import ColorChoice, FitChoice, JsonOption, capabilities_of, numbers_of, size_of
from vidseg.progress import progress_bar, progress_stages

if TYPE_CHECKING:
    from vidseg.export.exporter import ExportReport, ExportRequest
    from vidseg.export.lint import Finding
    from vidseg.export.lint_rules import Rule

PLACES = 3
"""Of a broken rule that are printed; `--json` has all."""


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
    calib_frames: CalibFramesOption = None,
    verify_images: VerifyImagesOption = None,
    verify_labels: VerifyLabelsOption = None,
    verify_map: VerifyMapOption = None,
    verify_ignore: VerifyIgnoreOption = None,
    max_miou_drop: MaxMiouDropOption = None,
    max_class_drop: MaxClassDropOption = None,
    max_disagreement: MaxDisagreementOption = None,
    plan: PlanOption = None,
    dla: DlaOption = False,
    rtx: RtxOption = None,
) -> None:
    """Make a bundle of an ONNX or PyTorch model, and check it against the original pixel by pixel."""
    from vidseg.calibration.gate import Budget
    from vidseg.export.exporter import ExportRequest
    from vidseg.export.plan import read_plan
    from vidseg.export.quantization import QuantizationRequest
    from vidseg.runtime.cache import user_cache_folder

    budgets = {"max_miou_drop": max_miou_drop, "max_class_drop": max_class_drop, "max_disagreement": max_disagreement}
    check_int8_options(
        {"--calib": calib, "--calib-frames": calib_frames, "--verify-images": verify_images,
         "--verify-labels": verify_labels, "--verify-map": verify_map, "--verify-ignore": verify_ignore,
         **{f"--{name.replace('_', '-')}": value for name, value in budgets.items()}, "--plan": plan, "--rtx": rtx,
         "--dla": dla or None}
    )  # fmt: skip
    quantization = None
    if calib is not None:
        quantization = QuantizationRequest(
            frames_uri=calib, images=verify_images, labels=verify_labels, mapping=verify_map,
            plan=None if plan is None else read_plan(plan), dla=dla, cache=user_cache_folder(os.environ),
            budget=Budget(**without_none(**budgets)), compute_capabilities=capabilities_of(rtx or ""),
            **without_none(frames=calib_frames, ignore=verify_ignore),
        )  # fmt: skip
    request = ExportRequest(
        model=model, out=out, weights=weights, size_wh=size_of(size), labels=labels, color=color.value,
        scale=numbers_of("--scale", scale)[0], mean=numbers_of("--mean", mean), std=numbers_of("--std", std),
        fit=fit.value, output=output, frames=frames, samples=samples, overwrite=overwrite, quantization=quantization,
    )  # fmt: skip
    _print_report(_exported(request))


def _exported(request: ExportRequest) -> ExportReport:
    """Export with progress; a signal ends the command with one line, and with nothing left behind."""
    from vidseg.export.exporter import export_model
    from vidseg.runtime.pipeline.signals import Interrupted, signals_raised

    try:
        with signals_raised(), progress_stages() as stage:
            return export_model(request, lambda line: print(line, file=sys.stderr), stage)
    except Interrupted as interrupted:
        again = " The same command goes on from the calibration, once that is finished." if request.quantization else ""
        print(f"vidseg: ended by {interrupted}, nothing is left half-written.{again}", file=sys.stderr)
        sys.exit(128 + interrupted.number)


def _print_report(report: ExportReport) -> None:
    from vidseg.export.variants import EXACT

    for variant, engines in report.accuracy.items():
        for name, accuracy in engines.items():
            shown = f"{accuracy.agreement:.4%} of the pixels as the original's, on {accuracy.frames} frames"
            where = "exact arithmetic, for TensorRT" if name == EXACT else name
            print(f"{variant} in {where}: {shown}")
    for line in report.quantization:
        print(line)
    if not report.own_frames:
        print("Checked on the rendered street. Give --frames for pictures of your own camera.")
    print(f"Wrote {report.out}")


def lint(
    model: Annotated[Path, typer.Argument(help="An ONNX file with QuantizeLinear and DequantizeLinear.")],
    as_json: JsonOption = False,
) -> None:
    """Check how an ONNX graph is quantized, rule by rule, by what TensorRT takes and computes in INT8.

    Ends with 1 where TensorRT would refuse it, or give other results. Other engines may take it all the same.
    """
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
        for line in _lines_by_rule(findings):
            print(line)
        print(f"{quantized} of {total} convolutions and products are quantized, {len(findings)} findings")
    if any(found.rule.level == "error" for found in findings):
        sys.exit(1)


def _lines_by_rule(findings: Sequence[Finding]) -> list[str]:
    """A line for each rule that is broken, with the first places and the reason once."""
    by_rule: dict[Rule, list[Finding]] = {}
    for finding in findings:
        by_rule.setdefault(finding.rule, []).append(finding)
    lines = []
    for rule, found in by_rule.items():
        places = "; ".join(f"{finding.tensor}: {finding.got}" for finding in found[:PLACES])
        more = f" and {len(found) - PLACES} more" if len(found) > PLACES else ""
        lines.append(f"{rule.level}: {rule.name} ({len(found)}): {places}{more}. {rule.reason}")
    return lines


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

    options = RecordingOptions(frames, seconds, interval)
    stop = threading.Event()
    with signals_set(stop) as received, progress_bar("frames", frames) as advance:
        recording = record_frames(source_from_uri(source), out, options, stop=stop, progress=advance)
    kept = recording.counts.kept
    asked = "" if kept == frames else f" of {frames}"
    place = f" in {recording.folder}" if kept else ""
    print(f"{kept}{asked} frames{place} ({recording.ending}): {recording.counts}")
    if recording.ending == "stopped" and received.number is not None:
        sys.exit(128 + received.number)
