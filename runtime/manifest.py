"""The schema of a bundle's `manifest.yaml`.

Strict: an unknown key, a missing one or a value out of range is refused. `parse_manifest` and `manifest_text` are
inverses.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from vidseg.runtime.errors import BundleError
from vidseg.runtime.geometry import Fit
from vidseg.runtime.upsampling import Alignment
from vidseg.runtime.yaml_reading import read_yaml

FORMAT = 3
"""The format that is written. FORMAT and FORMAT - 1 are read."""

Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]

UNPRINTABLE = r"\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069"
"""What a terminal obeys, and what breaks lines or turns text around."""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=rf"^[^{UNPRINTABLE}]+\Z")]
MemberPath = Annotated[
    str, msgspec.Meta(max_length=200, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*\Z")
]
Size = Annotated[int, msgspec.Meta(ge=1, le=16384)]
Level = Annotated[int, msgspec.Meta(ge=0, le=255)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class InputSpec(_Strict, frozen=True):
    """What the graph takes, and the preprocessing that was folded into it.

    Attributes:
        size_wh: width and height in pixels.
        layout: always NHWC: the graph takes `image`, (n, h, w, 3) uint8 BGR.
        fit: how the pipeline lays a frame on the input.
        color, scale, mean, std: what the original model was fed: channels in the order `color`, each
            (value * scale - mean) / std.
    """

    size_wh: tuple[Size, Size]
    fit: Fit
    color: Literal["RGB", "BGR"]
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    layout: Literal["NHWC"] = "NHWC"


class ClassSpec(_Strict, frozen=True):
    """One class: its name and its colour in pictures, red, green, blue."""

    name: Name
    color_rgb: tuple[Level, Level, Level]


class OutputSpec(_Strict, frozen=True):
    """What the graph gives: `class_map`, (n, h, w) uint8 of indices into `classes`."""

    size_wh: tuple[Size, Size]
    classes: Annotated[tuple[ClassSpec, ...], msgspec.Meta(min_length=1, max_length=255)]
    ignore_id: Literal[255] = 255


class AccuracySpec(_Strict, frozen=True):
    """How a variant compared with the original model in one engine.

    Attributes:
        frames: number of frames compared.
        agreement: share of their pixels with the same class, 0..1.
        disagreement: share of pixels with another class where the float model is sure; None where not measured.
        mean_iou: against labels, 0..1; None without labels.
        samples: share of the bundle's samples' pixels with the same class; a device should find nearly as many. None
            for float variants, which have to reproduce nearly all.
    """

    frames: Annotated[int, msgspec.Meta(ge=1)]
    agreement: Share
    disagreement: Share | None = None
    mean_iou: Share | None = None
    samples: Share | None = None


class UpsamplingSpec(_Strict, frozen=True):
    """The last step of a model, bilinear upsampling of its scores, that was left out of a graph.

    Attributes:
        grid_wh: size of the scores.
        alignment: how the two grids lie to each other, as in ONNX's Resize.
        scores: logits, or probabilities of a softmax before the upsampling.
    """

    grid_wh: tuple[Size, Size]
    alignment: Alignment
    scores: Literal["logits", "probabilities"]


class VariantSpec(_Strict, frozen=True):
    """One ONNX file of the bundle, and the engines that it is for.

    Attributes:
        upsampling: what the runtime has to do; None where the graph gives class ids.
    """

    name: Name
    file: MemberPath
    precision: Literal["fp32", "fp16", "int8"]
    targets: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1)]
    accuracy: dict[Name, AccuracySpec]
    upsampling: UpsamplingSpec | None = None


class SampleSpec(_Strict, frozen=True):
    """A verification frame at the input's size and the class map that the float variant gave for it (both PNG)."""

    image: MemberPath
    class_map: MemberPath


class ProvenanceSpec(_Strict, frozen=True):
    """Where the bundle comes from: the model file, the frames it was checked on, the versions that made it."""

    model_name: Name
    model_sha256: Sha256
    frames_source: Name
    frames_sha256: Sha256
    tools: dict[Name, Name]


class Manifest(_Strict, frozen=True):
    """The whole of `manifest.yaml`. `members` holds the sha256 of every other file of the bundle by its path."""

    format: int
    task: Literal["semantic"]
    input: InputSpec
    output: OutputSpec
    variants: Annotated[tuple[VariantSpec, ...], msgspec.Meta(min_length=1)]
    samples: tuple[SampleSpec, ...]
    provenance: ProvenanceSpec
    members: dict[MemberPath, Sha256]


def manifest_text(manifest: Manifest) -> str:
    """The manifest as YAML, UTF-8, keys in the order of the schema: the same manifest gives the same bytes."""
    import yaml

    text: str = yaml.safe_dump(msgspec.to_builtins(manifest), sort_keys=False, allow_unicode=True, width=120)
    return text


def parse_manifest(text: str | bytes, origin: str) -> Manifest:
    """Read `manifest.yaml`.

    Args:
        text: the file's content; hostile until this returns.
        origin: the bundle's path, for messages.

    Raises:
        BundleError: it is no YAML, not of this schema, of a format that is not read here, or names files that are not
            among its members.
    """
    try:
        document = read_yaml(text)
    except ValueError as error:
        raise BundleError(f"{origin}: manifest.yaml is no YAML", str(error), "Export the bundle again.") from error
    version = document.get("format") if isinstance(document, dict) else None
    if version not in (FORMAT, FORMAT - 1) or isinstance(version, bool):
        raise BundleError(
            f"{origin}: manifest.yaml is not of format {FORMAT}",
            f"format {version!r:.40}",
            "Export the bundle again, or update vidseg.",
        )
    try:
        manifest = msgspec.convert(document, Manifest)
    except (msgspec.ValidationError, RecursionError) as error:
        raise BundleError(
            f"{origin}: manifest.yaml does not fit", f"{error!s:.300}", "Export the bundle again."
        ) from error
    _check_references(manifest, origin)
    return manifest


def _check_references(manifest: Manifest, origin: str) -> None:
    named = [variant.file for variant in manifest.variants]
    for sample in manifest.samples:
        named += [sample.image, sample.class_map]
    missing = [path for path in named if path not in manifest.members]
    if missing:
        raise BundleError(
            f"{origin}: manifest.yaml names a file without a checksum", missing[0], "Export the bundle again."
        )
    names = [variant.name for variant in manifest.variants]
    if len(set(names)) != len(names):
        raise BundleError(f"{origin}: manifest.yaml has two variants of one name", f"{names}"[:200], "Rename one.")
