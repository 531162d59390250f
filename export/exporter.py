"""From an ONNX file, or a PyTorch model, to a bundle: load, fuse, verify, write."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from vidseg.export.batch import with_batch_axis
from vidseg.export.cut import find_cut
from vidseg.export.float_variants import float_variants
from vidseg.export.frames import STREET_URI, CheckFrames, every, spread_frames
from vidseg.export.fuse import fuse
from vidseg.export.head import find_head
from vidseg.export.int8 import Stage
from vidseg.export.labels import Label, check_count, colored, read_labels
from vidseg.export.model import LoadedModel, check_packages, load_model
from vidseg.export.quantization import BundleQuantizer, Quantization, QuantizationRequest, float_model_of
from vidseg.export.quantized_model import FloatModel
from vidseg.export.report import report_document, report_lines
from vidseg.export.report_page import report_page
from vidseg.export.torch_model import is_reference, onnx_from_torch
from vidseg.export.verify import OriginalModel
from vidseg.runtime.bundle_writer import check_place, write_bundle
from vidseg.runtime.errors import ConfigurationError, UsageError
from vidseg.runtime.frame import ClassMap, Image
from vidseg.runtime.geometry import Fit, placement_of
from vidseg.runtime.manifest import (
    FORMAT,
    AccuracySpec,
    ClassSpec,
    InputSpec,
    Manifest,
    OutputSpec,
    ProvenanceSpec,
    SampleSpec,
    VariantSpec,
)

CHECK_FRAMES = 16
SAMPLES = 8
TOOLS = ("vidseg", "onnx", "onnxslim", "onnxruntime")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """What to export, and how the model wants its input.

    Attributes:
        model: the ONNX file, or `package.module:function` of a function that returns a `torch.nn.Module`.
        out: where the bundle goes; a name that ends in `.vidseg` makes a zip, another one a folder.
        weights: file of a state dict for a PyTorch model; None where the function loads them.
        size_wh: the input's size in pixels; None where the model has a fixed one, which an ONNX file only can.
        labels: name of a set of classes, or path of a file; None for the model's own names.
        color: order of the channels that the model was trained on.
        scale, mean, std: the model is fed (value * scale - mean) / std, values 0..255, three of each in that order.
        fit: how the pipeline lays a frame on the input.
        output: name of the output, where there are several.
        frames: URI of frames to check on and to keep as samples; None for the rendered street.
        samples: keep 8 frames and their class maps in the bundle.
        quantization: what to calibrate on; None for float only.
        overwrite: replace what is at `out`.
    """

    model: Path | str
    out: Path
    weights: Path | None = None
    size_wh: tuple[int, int] | None = None
    labels: str | None = None
    color: str = "RGB"
    scale: float = 1 / 255
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    fit: Fit = "stretch"
    output: str | None = None
    frames: str | None = None
    samples: bool = True
    quantization: QuantizationRequest | None = None
    overwrite: bool = False

    @property
    def own_frames(self) -> str | None:
        """URI of the caller's frames to check on: those to calibrate on, where no others are given."""
        return self.frames or (self.quantization.frames_uri if self.quantization else None)

    def __post_init__(self) -> None:
        if is_reference(self.model) and self.size_wh is None:
            raise UsageError(f"{self.model}: a PyTorch model needs --size", "none", "Write it as --size 480x360.")
        if not is_reference(self.model) and self.weights is not None:
            raise UsageError(
                "--weights goes with a PyTorch model only",
                str(self.model),
                "Name the function that builds it, as package.module:function.",
            )
        if self.color not in {"RGB", "BGR"}:
            raise UsageError("the colour order is RGB or BGR", self.color)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            factors = np.float32(self.scale) / np.array(self.std, np.float32)
            shifts = np.array(self.mean, np.float32) / np.float32(self.scale)
        if not np.isfinite([*factors, *shifts]).all() or not factors.all():
            raise UsageError(
                "scale, mean and std are finite, scale and std not 0",
                f"scale {self.scale}, mean {self.mean}, std {self.std}",
            )


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written.

    Attributes:
        out: the bundle.
        accuracy: share of pixels equal to the original's, by variant and engine.
        frames_source: what it was checked on.
        own_frames: True where the caller gave the frames.
        quantization: lines about the INT8 part; none without.
    """

    out: Path
    accuracy: dict[str, dict[str, AccuracySpec]]
    frames_source: str
    own_frames: bool
    quantization: tuple[str, ...] = ()


def export_model(
    request: ExportRequest, log: Callable[[str], None] = lambda _line: None, stage: Stage | None = None
) -> ExportReport:
    """Export a model as a verified bundle, or write nothing.

    Args:
        request: see `ExportRequest`.
        log: called with a line at each step.
        stage: called at the start of a long step with its name and the number of its ticks, 0 where that is not known;
            gives what is called at each tick.

    Raises:
        ModelError: the model cannot be exported, or what came out differs from it.
        ConfigurationError: class names or the place of the bundle do not fit, or a package is missing.
        SourceError: the frames cannot be read.
    """
    check_packages()
    if os.path.realpath(request.out) == os.path.realpath(request.model):
        raise UsageError(f"{request.out} is the model itself", "", "Name another place for the bundle.")
    check_place(request.out, overwrite=request.overwrite)
    model = _loaded(request, log)
    classes, origin = _classes(request, model)
    head = find_head(model, request.output, len(classes) or None)
    check_count(classes, head.classes, origin)
    spec = _input_spec(request, model)
    names = [entry.name for entry in classes]
    labelled = request.quantization.check(names) if request.quantization else None
    log(f"{model.name}: {model.layout} {model.size_wh[0]}x{model.size_wh[1]}, {head.classes} classes, {head.kind}")
    cut = find_cut(model, head)
    content = fuse(model, head, cut, spec)
    frames = spread_frames(request.own_frames or STREET_URI, CHECK_FRAMES)
    images = [_fitted(image, spec) for image in frames.images]
    log(f"comparing with the original on {len(images)} frames")
    original = OriginalModel(model, head, spec)
    pairs = [(image, original.class_map(image)) for image in images]
    variants, members = float_variants(content, model, cut, pairs, log)
    kept = every(pairs, SAMPLES) if request.samples else []
    samples, pictures = _samples(kept)
    lines: Sequence[str] = ()
    if request.quantization is not None:
        float_model = float_model_of(model, head, cut, content)
        quantizer = BundleQuantizer(request.quantization, float_model, spec, names, labelled, stage or _silent, log)
        found = quantizer.quantize(kept)
        variants += found.variants
        lines = report_lines(found)
        members |= found.members | _report_members(found, float_model, classes, pictures=request.samples)
    manifest = Manifest(
        format=FORMAT,
        task="semantic",
        input=spec,
        output=OutputSpec(size_wh=model.size_wh, classes=classes),
        variants=tuple(variants),
        samples=samples,
        provenance=_provenance(model, frames, TOOLS + (("torch",) if is_reference(request.model) else ())),
        members={},
    )
    opened = _for_batches(members, variants, images, log)
    write_bundle(request.out, manifest, opened | pictures, overwrite=request.overwrite)
    accuracy = {variant.name: variant.accuracy for variant in variants}
    return ExportReport(request.out, accuracy, frames.source, request.own_frames is not None, tuple(lines))


def _for_batches(
    members: dict[str, bytes], variants: Sequence[VariantSpec], images: Sequence[Image], log: Callable[[str], None]
) -> dict[str, bytes]:
    """The members; of the graphs for TensorRT those that take any number of pictures, where that can be shown."""
    opened = {}
    for file in dict.fromkeys(variant.file for variant in variants if "tensorrt" in variant.targets):
        content = with_batch_axis(members[file], (images[0], 255 - images[-1][::-1]))
        if content is None:
            log(f"{file} takes one picture at a time: two at once are refused, or get other classes than alone")
        else:
            opened[file] = content
    return members | opened


def _silent(_name: str, _ticks: int) -> Callable[[], None]:
    return lambda: None


def _report_members(
    found: Quantization,
    model: FloatModel,
    classes: Sequence[ClassSpec],
    *,
    pictures: bool,
) -> dict[str, bytes]:
    document = report_document(found)
    with ExitStack() as stack:
        engines = []
        shown = found.shown
        if pictures and shown is not None:
            for content, precision in ((model.content, "fp32"), (shown.content, "int8")):
                engines.append(stack.enter_context(model.opener(content, shown.engine, None, precision)()))
        page = report_page(found, document, model.name, engines, classes)
    return {"report.json": json.dumps(document, indent=1).encode(), "report.html": page.encode()}


def _loaded(request: ExportRequest, log: Callable[[str], None]) -> LoadedModel:
    if not is_reference(request.model):
        return load_model(Path(request.model), request.size_wh)
    reference, size_wh = str(request.model), request.size_wh
    assert size_wh is not None  # the request has checked it
    log(f"{reference}: from PyTorch to ONNX")
    with TemporaryDirectory(prefix="vidseg-") as folder:
        return load_model(onnx_from_torch(reference, request.weights, size_wh, Path(folder)), size_wh, reference)


def _classes(request: ExportRequest, model: LoadedModel) -> tuple[tuple[ClassSpec, ...], str]:
    """The classes that the caller names, else those in the model's metadata; and where they come from."""
    if request.labels is not None:
        return read_labels(request.labels), f"--labels {request.labels}"
    metadata = {entry.key: entry.value for entry in model.original.metadata_props}
    names = [name.strip() for name in metadata.get("classes", "").split(",") if name.strip()]
    if not names:
        raise ConfigurationError(
            f"{model.name}: the model does not name its classes", "no `classes` in its metadata", "Give --labels."
        )
    return colored([Label(name) for name in names], model.name), model.name


def _input_spec(request: ExportRequest, model: LoadedModel) -> InputSpec:
    return InputSpec(
        size_wh=model.size_wh,
        fit=request.fit,
        color="RGB" if request.color == "RGB" else "BGR",
        scale=request.scale,
        mean=request.mean,
        std=request.std,
    )


def _fitted(image: Image, spec: InputSpec) -> Image:
    return placement_of((image.shape[1], image.shape[0]), spec.size_wh, spec.fit).input_from_frame(image)


def _samples(pairs: Iterable[tuple[Image, ClassMap]]) -> tuple[tuple[SampleSpec, ...], dict[str, bytes]]:
    specs: list[SampleSpec] = []
    members: dict[str, bytes] = {}
    for number, (image, class_map) in enumerate(pairs):
        spec = SampleSpec(image=f"samples/{number}.png", class_map=f"samples/{number}-classes.png")
        for name, picture in ((spec.image, image), (spec.class_map, class_map)):
            members[name] = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()
        specs.append(spec)
    return tuple(specs), members


def _provenance(model: LoadedModel, frames: CheckFrames, tools: tuple[str, ...]) -> ProvenanceSpec:
    return ProvenanceSpec(
        model_name=model.name,
        model_sha256=model.sha256,
        frames_source=Path(frames.source).name if "://" not in frames.source else frames.source,
        frames_sha256=frames.sha256,
        tools={tool: version(tool) for tool in tools},
    )
