"""The variants that need no calibration: the graph as it is, ended early, and in float16."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil

from vidseg.export.cut import Cut
from vidseg.export.frames import every
from vidseg.export.half import half_tensors, in_half, large_activations, rounded
from vidseg.export.model import LoadedModel
from vidseg.export.runner import GraphRunner
from vidseg.export.variants import EXACT
from vidseg.export.verify import MIN_AGREEMENT, agreement_of, check_agreement, engines_for_check
from vidseg.runtime.engines import Engine
from vidseg.runtime.engines.graph import GraphOptions
from vidseg.runtime.engines.onnxruntime import OnnxRuntimeEngine
from vidseg.runtime.errors import EngineError, ModelError
from vidseg.runtime.frame import ClassMap, Image
from vidseg.runtime.manifest import AccuracySpec, UpsamplingSpec, VariantSpec

FLOAT_FILE, HALF_FILE = "model.onnx", "fp16.onnx"

LARGE_FRAMES = 8
"""That show which activations float16 cannot hold."""

EARLY = (0.0, 0.1, 0.25)
"""Shares of the network's beginning that stay float32, one after the other until the classes are right: what is lost
there passes through everything. SINet gets 99.87 % of its pixels right, a U-Net with MobileNetV3 99.73 %; both get
99.93 % with the first tenth in float32. Nine other models get over 99.9 % without."""


def float_variants(
    content: bytes,
    model: LoadedModel,
    cut: Cut | None,
    pairs: Sequence[tuple[Image, ClassMap]],
    log: Callable[[str], None],
) -> tuple[list[VariantSpec], dict[str, bytes]]:
    """The variants, each compared with the original, and the graphs that they name, by member of the bundle.

    Args:
        content: the fused graph.
        model: what it was made of.
        cut: where it may end early.
        pairs: pictures to compare on, at the input's size, (h, w, 3) uint8 BGR, and the original's class maps of them.
        log: called with a line where float16 is left out.

    Raises:
        ModelError: the graph differs from the original, or an engine refuses it.
    """
    images, class_maps = [image for image, _ in pairs], [class_map for _, class_map in pairs]
    specs = [_float(content, model, None, images, class_maps)]
    if cut is not None:
        specs.append(_float(content, model, cut.spec, images, class_maps))
    members = {FLOAT_FILE: content}
    try:
        half, agreement = accurate_half(content, model.name, images, class_maps)
    except EngineError as error:
        log(f"no variant fp16: {error}")
        return specs, members
    if agreement < MIN_AGREEMENT:
        log(f"no variant fp16: in float16 only {agreement:.3%} of the pixels get the original's class")
        return specs, members
    accuracy = {EXACT: AccuracySpec(frames=len(images), agreement=round(agreement, 6))}
    specs.append(VariantSpec(name="fp16", file=HALF_FILE, precision="fp16", targets=("tensorrt",), accuracy=accuracy))
    return specs, members | {HALF_FILE: half}


def accurate_half(
    content: bytes, name: str, images: Sequence[Image], class_maps: Sequence[ClassMap]
) -> tuple[bytes, float]:
    """A graph in float16 but for what that rounds too coarsely, and its agreement with the original, 0..1.

    Args:
        content: the graph.
        name: of the model, for messages.
        images: to compare on, at the input's size, (h, w, 3) uint8 BGR.
        class_maps: the original's for these.

    Raises:
        EngineError: the library refuses it.
    """
    tensors = half_tensors(content)
    large = large_activations(GraphRunner(name, "onnxruntime"), content, every(images, LARGE_FRAMES))
    half, agreement = b"", 0.0
    for share in EARLY:
        half = in_half(content, [*large, *tensors[: ceil(share * len(tensors))]])
        with OnnxRuntimeEngine(rounded(half), GraphOptions(name, "fp16")) as engine:
            agreement = agreement_of(engine, images, class_maps)
        if agreement >= MIN_AGREEMENT:
            break
    return half, agreement


def _float(
    content: bytes,
    model: LoadedModel,
    upsampling: UpsamplingSpec | None,
    images: Sequence[Image],
    class_maps: Sequence[ClassMap],
) -> VariantSpec:
    """The graph as it is, or ended before its last upsampling; the device has no such step of the runtime."""
    return VariantSpec(
        name="float-cut" if upsampling else "float",
        file=FLOAT_FILE,
        precision="fp32",
        targets=("onnxruntime", "openvino") if upsampling else ("onnxruntime", "openvino", "tensorrt"),
        accuracy=check_agreement(class_maps, _engines(content, model, upsampling), images, model.name),
        upsampling=upsampling,
    )


def _engines(content: bytes, model: LoadedModel, upsampling: UpsamplingSpec | None) -> dict[str, Engine]:
    try:
        return engines_for_check(content, model, upsampling)
    except EngineError as error:
        raise ModelError(f"{model.name}: the fused graph cannot be loaded", str(error)) from error
