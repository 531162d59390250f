"""Claim: INT8, as exported, is within 0.5 points of the float model's mean IoU on labelled frames that nobody
calibrated on; and where there are no labels, at most 0.5 % of the pixels differ where the float model is sure. The same
file in another engine is within 0.2 points of it, and at most 0.5 % of its pixels differ where the float model is sure;
of the float model's pixels 99.9 % are the same in both engines.

Beside it ONNX Runtime's `quantize_static` and NNCF's two presets, on the same graph and as many frames of the same
source. Prints a table in Markdown. Takes an hour for all models: `python -m benchmarks.int8_accuracy [NAME...]`.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.interleave import Claim, conclude
from benchmarks.rivals import nncf_model, static_model
from benchmarks.zoo import VOID, ZooModel, labelled_frames, report_of, zoo
from vidseg.calibration.evaluation import EvaluationOptions, evaluate
from vidseg.calibration.gate import compare
from vidseg.export.cut import find_cut
from vidseg.export.frames import spread_frames
from vidseg.export.head import find_head
from vidseg.export.model import load_model
from vidseg.export.quantization import float_model_of
from vidseg.export.quantized_model import FloatModel
from vidseg.export.references import float_references
from vidseg.export.runner import GraphRunner
from vidseg.runtime.bundle import Bundle
from vidseg.runtime.engines import Engine
from vidseg.runtime.engines.graph import GraphOptions
from vidseg.runtime.engines.onnxruntime import OnnxRuntimeEngine
from vidseg.runtime.engines.opening import EngineName
from vidseg.runtime.frame import Image
from vidseg.runtime.segmenter import Segmenter

MAX_DROP = 0.005
MAX_DISAGREEMENT = 0.005
MAX_DROP_ELSEWHERE = 0.002
MIN_FLOAT_AGREEMENT = 0.999
COLUMNS = {
    "INT8": "INT8",
    "elsewhere": "the same file in the other engine",
    "TensorRT": "for TensorRT, exact",
    "static": "ONNX Runtime static",
    "NNCF": "NNCF",
    "NNCF mixed": "NNCF mixed",
}
HEAD = ("model", "verdict", "INT8 multiply-adds", "float", *COLUMNS.values())
OTHER: dict[EngineName, EngineName] = {"openvino": "onnxruntime", "onnxruntime": "openvino"}


@dataclass(frozen=True)
class Measured:
    """What an engine reaches.

    Attributes:
        mean_iou: on `camvid/test`, in one matrix; None where the model's classes are not labelled there.
        disagreement: share of the pixels with another class where the float model is sure.
        agreement: share of the pixels with the float model's class.
    """

    mean_iou: float | None
    disagreement: float
    agreement: float

    def __str__(self) -> str:
        return f"{self.disagreement:.2%} differ" if self.mean_iou is None else f"{self.mean_iou:.4f}"


class Examiner:
    """Measures engines for one model against its float graph.

    Args:
        model: see `ZooModel`.
        bundle: of it.
    """

    def __init__(self, model: ZooModel, bundle: Bundle) -> None:
        self._model, self._bundle = model, bundle
        self._fit = bundle.manifest.input.fit
        self.float_model = float_model(model, bundle)
        images: Sequence[Image] = spread_frames(model.calib_uri, 32).images
        if model.labelled:
            images = [pair.image for pair in labelled_frames()][::4]
        runner = GraphRunner(model.name, "openvino")
        self._references = float_references(runner, self.float_model, self._fit, images, lambda: None)

    def measure(self, engine: Engine) -> Measured:
        """Run it over all frames and close it."""
        with Segmenter(engine, self._fit) as segmenter:
            found = compare(segmenter, self._references)
            mean_iou = None
            if self._model.labelled:
                names = [spec.name for spec in self._bundle.manifest.output.classes]
                options = EvaluationOptions(VOID, self._model.mapping)
                mean_iou = evaluate(segmenter, labelled_frames(), names, options).scores.mean_iou
        return Measured(mean_iou, found.disagreement, found.agreement)


def float_model(model: ZooModel, bundle: Bundle) -> FloatModel:
    """The float graph of a bundle, with where its classes are decided."""
    loaded = load_model(model.file, None)
    head = find_head(loaded, None, len(bundle.manifest.output.classes))
    return float_model_of(loaded, head, find_cut(loaded, head), bundle.members["model.onnx"])


def row_of(model: ZooModel, bundle: Bundle, rivals: bool) -> tuple[list[str], list[Claim]]:
    """A line of the table, and whether the claims hold."""
    report = report_of(bundle)
    chosen: EngineName | None = report["chosen"]
    examiner = Examiner(model, bundle)
    opener = partial(examiner.float_model.opener, upsampling=None)
    content = bundle.members["model.onnx"]
    reference, elsewhere = (examiner.measure(opener(content, engine)()) for engine in ("openvino", "onnxruntime"))
    claims = [_agree(f"{model.name}: float in both engines", elsewhere)]
    engines: dict[str, Callable[[], Engine]] = {}
    if chosen is not None:
        content = bundle.members[f"int8-{chosen}.onnx"]
        engines["INT8"], engines["elsewhere"] = opener(content, chosen), opener(content, OTHER[chosen])
    if "int8.onnx" in bundle.members:
        engines["TensorRT"] = partial(OnnxRuntimeEngine, bundle.members["int8.onnx"], GraphOptions(exact=True))
    if rivals:
        engines |= _rivals(bundle, model)
    found = {name: examiner.measure(make()) for name, make in engines.items()}
    claims += [
        _close(f"{model.name}, {name}", found[name], reference) for name in ("INT8", "TensorRT") if name in found
    ]
    if chosen is not None:
        limit = MAX_DROP_ELSEWHERE
        claims.append(_close(f"{model.name} in {OTHER[chosen]}", found["elsewhere"], found["INT8"], limit))
    cells = [model.name, report["verdict"], f"{report['int8_share_of_macs']:.0%}"]
    cells += ["–" if reference.mean_iou is None else str(reference)]
    return cells + [str(found.get(name, "–")) for name in COLUMNS], claims


def _agree(name: str, found: Measured) -> Claim:
    return Claim(name, f"{found.agreement:.4%} of the pixels equal", found.agreement >= MIN_FLOAT_AGREEMENT)


def _close(name: str, found: Measured, reference: Measured, limit: float = MAX_DROP) -> Claim:
    if found.mean_iou is None or reference.mean_iou is None:
        share = found.disagreement
        return Claim(name, f"{share:.3%} differ where float is sure", share <= MAX_DISAGREEMENT)
    drop = reference.mean_iou - found.mean_iou
    return Claim(name, f"mean IoU falls by {100 * drop:.2f} points", drop <= limit)


def _rivals(bundle: Bundle, model: ZooModel) -> dict[str, Callable[[], Engine]]:
    makers: dict[str, Callable[[], Engine]] = {"static": lambda: static_model(bundle, model)}
    if importlib.util.find_spec("nncf"):
        makers["NNCF"] = lambda: nncf_model(bundle, model, "performance")
        makers["NNCF mixed"] = lambda: nncf_model(bundle, model, "mixed")
    return makers


def main() -> None:
    """Print the table and the claims."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--bundles", type=Path, help="keep and reuse the bundles here")
    parser.add_argument("--trained", type=Path, help="folder with demo.onnx and segformer.onnx")
    parser.add_argument("--rivals", action="store_true")
    options = parser.parse_args()
    claims: list[Claim] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.bundles or Path(scratch)
        print("| " + " | ".join(HEAD) + " |")
        print("|" + "---|" * len(HEAD))
        for model in zoo(options.names, options.trained):
            bundle = model.export(folder / f"{model.name}.vidseg", folder)
            cells, found = row_of(model, bundle, options.rivals)
            print("| " + " | ".join(cells) + " |", flush=True)
            claims += found
    conclude(*claims)


if __name__ == "__main__":
    main()
