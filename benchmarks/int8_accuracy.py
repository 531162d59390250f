"""Claim: INT8, as exported, is within 0.5 points of the float model's mean IoU on labelled frames that nobody
calibrated on; and where there are no labels, at most 0.5 % of the pixels differ where the float model is sure.

Beside it ONNX Runtime's `quantize_static` and NNCF's two presets, on the same graph and calibration frames. Prints a
table in Markdown. Takes an hour for all models: `python -m benchmarks.int8_accuracy [NAME...]`.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.interleave import Claim, conclude
from benchmarks.rivals import nncf_model, static_model
from benchmarks.zoo import VOID, ZooModel, report_of, test_frames, zoo
from vidseg.calibration.evaluation import EvaluationOptions, evaluate
from vidseg.runtime.bundle import Bundle
from vidseg.runtime.engines import Engine
from vidseg.runtime.engines.graph import GraphOptions
from vidseg.runtime.engines.onnxruntime import OnnxRuntimeEngine
from vidseg.runtime.engines.opening import open_engine
from vidseg.runtime.segmenter import Segmenter

MAX_DROP = 0.005
MAX_DISAGREEMENT = 0.005
HEAD = (
    "model", "verdict", "INT8 multiply-adds", "float", "INT8", "for TensorRT, exact", "ONNX Runtime static", "NNCF",
    "NNCF mixed",
)  # fmt: skip


def mean_iou(model: ZooModel, bundle: Bundle, engine: Engine) -> float:
    """On `camvid/test`, in one matrix."""
    names = [spec.name for spec in bundle.manifest.output.classes]
    with Segmenter(engine, bundle.manifest.input.fit) as segmenter:
        report = evaluate(segmenter, test_frames(), names, EvaluationOptions(VOID, model.mapping))
    return report.scores.mean_iou


def exact(bundle: Bundle) -> Engine | None:
    """The graph for TensorRT, computed as written."""
    content = bundle.members.get("int8.onnx")
    return None if content is None else OnnxRuntimeEngine(content, GraphOptions(exact=True))


def row_of(model: ZooModel, bundle: Bundle, rivals: bool) -> tuple[list[str], Claim]:
    """A line of the table, and whether the claim holds."""
    report = report_of(bundle)
    chosen = report["chosen"]
    target = report["targets"].get(chosen) or report["tensorrt"] or {"disagreement": math.nan}
    cells = [model.name, report["verdict"], f"{report['int8_share_of_macs']:.0%}"]
    if not model.labelled:
        share = target["disagreement"]
        cells += [f"{share:.2%} differ", *["–"] * 5]
        return cells, Claim(model.name, f"{share:.3%} differ where float is sure", share <= MAX_DISAGREEMENT)
    reference = mean_iou(model, bundle, open_engine(bundle))
    master = exact(bundle)
    shipped = mean_iou(model, bundle, open_engine(bundle, chosen, f"int8-{chosen}")) if chosen else reference
    found = [shipped, math.nan if master is None else mean_iou(model, bundle, master)]
    found += [mean_iou(model, bundle, engine) for engine in _rivals(bundle, model)] if rivals else [math.nan] * 3
    cells += [f"{reference:.4f}", *("–" if math.isnan(value) else f"{value:.4f}" for value in found)]
    drops = [reference - value for value in found[:2] if not math.isnan(value)]
    return cells, Claim(model.name, f"mean IoU falls by {100 * max(drops):.2f} points", max(drops) <= MAX_DROP)


def _rivals(bundle: Bundle, model: ZooModel) -> list[Engine]:
    makers: list[Callable[[], Engine]] = [lambda: static_model(bundle, model)]
    if importlib.util.find_spec("nncf"):
        makers += [lambda: nncf_model(bundle, model, "performance"), lambda: nncf_model(bundle, model, "mixed")]
    return [make() for make in makers]


def main() -> None:
    """Print the table and the claims."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--bundles", type=Path, help="keep and reuse the bundles here")
    parser.add_argument("--trained", type=Path, help="folder with demo.onnx and segformer.onnx")
    parser.add_argument("--rivals", action="store_true")
    options = parser.parse_args()
    claims = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.bundles or Path(scratch)
        print("| " + " | ".join(HEAD) + " |")
        print("|" + "---|" * len(HEAD))
        for model in zoo(options.names, options.trained):
            bundle = model.export(folder / f"{model.name}.vidseg", folder)
            cells, claim = row_of(model, bundle, options.rivals)
            print("| " + " | ".join(cells) + " |", flush=True)
            claims.append(claim)
    conclude(*claims)


if __name__ == "__main__":
    main()
