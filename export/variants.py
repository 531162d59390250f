"""The variants of a quantized model, as a bundle's manifest lists them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from vidseg.calibration.gate import Comparison
from vidseg.export.half import rounded
from vidseg.export.quantized_model import FloatModel, QuantizedModel
from vidseg.export.runner import GraphRunner
from vidseg.runtime.engines import Engine, predict
from vidseg.runtime.engines.opening import open_graph
from vidseg.runtime.frame import ClassMap, Image
from vidseg.runtime.manifest import AccuracySpec, UpsamplingSpec, VariantSpec

EXACT = "exact"
"""Where a device is not at hand: computed as written, in float."""

Samples = Sequence[tuple[Image, ClassMap]]


def quantized_variants(
    model: FloatModel, quantized: QuantizedModel, samples: Samples
) -> tuple[tuple[VariantSpec, ...], dict[str, bytes]]:
    """Variants of all that ships, and the graphs that they name, by member of the bundle.

    Args:
        model: the float graph.
        quantized: what came of it.
        samples: of the bundle, each at the input's size with its class map, to be reproduced on devices.
    """
    specs: list[VariantSpec] = []
    members: dict[str, bytes] = {}
    for target in quantized.targets:
        if target.ships:
            file = f"int8-{target.engine}.onnx"
            members[file] = target.content
            for ending, upsampling in model.forms().items():
                opener = model.opener(target.content, target.engine, upsampling)
                accuracy = _accuracy(target.comparison, _agreement(opener, samples))
                name = f"int8-{target.engine}{ending}"
                specs.append(_variant(name, file, target.engine, {target.engine: accuracy}, upsampling))
    master, dla = quantized.master, quantized.dla
    if master is not None:
        specs.append(_for_tensorrt(model, "int8", master.content, master.comparison, samples))
        members["int8.onnx"] = master.content
        if master.half is not None and master.half_comparison is not None:
            specs.append(_for_tensorrt(model, "int8-fp16", rounded(master.half), master.half_comparison, samples))
            members["int8-fp16.onnx"] = master.half
    if dla is not None:
        specs.append(_for_tensorrt(model, "int8-ranges", dla.simulated, dla.comparison, samples))
        members |= {"int8-ranges.onnx": dla.content, "int8-ranges.json": dla.ranges}
    return tuple(specs), members


def _variant(
    name: str, file: str, target: str, accuracy: dict[str, AccuracySpec], upsampling: UpsamplingSpec | None = None
) -> VariantSpec:
    return VariantSpec(
        name=name, file=file, precision="int8", targets=(target,), accuracy=accuracy, upsampling=upsampling
    )


def _for_tensorrt(model: FloatModel, name: str, judged: bytes, comparison: Comparison, samples: Samples) -> VariantSpec:
    """A variant for a device that is not here; what was judged is computed as it is written."""
    runner = GraphRunner(model.name, "onnxruntime", exact=True)
    agreement = _agreement(lambda: open_graph(judged, runner.engine, runner.options()), samples)
    return _variant(name, f"{name}.onnx", "tensorrt", {EXACT: _accuracy(comparison, agreement)})


def _agreement(opener: Callable[[], Engine], samples: Samples) -> float | None:
    """Share of the samples' pixels that get their class; None without samples."""
    with opener() as engine:
        equal = [float((predict(engine, image).class_map == wanted).mean()) for image, wanted in samples]
    return float(np.mean(equal)) if equal else None


def _accuracy(found: Comparison, samples: float | None = None) -> AccuracySpec:
    return AccuracySpec(
        frames=found.frames,
        agreement=round(found.agreement, 6),
        disagreement=round(found.disagreement, 6),
        mean_iou=None if found.mean_iou is None else round(found.mean_iou, 6),
        samples=None if samples is None else round(samples, 6),
    )
