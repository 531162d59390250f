"""Which graph of a bundle makes a plan of a wanted precision, and how TensorRT is told to compute it.

Where flags of the builder choose the data types (8.5 to 10), the float graph serves fp32 and fp16, and the one with
Q/DQ serves int8. Where types are the graph's (11, and TensorRT-RTX), each precision has its own. A DLA takes no Q/DQ:
it gets the float graph with the range of each tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from vidseg.runtime.bundle import Bundle
from vidseg.runtime.engines.tensorrt.library import Abilities
from vidseg.runtime.engines.tensorrt.settings import BuildSettings, Precision
from vidseg.runtime.errors import EngineError

_AGAIN = {
    "float": "Export the bundle again.",
    "fp16": "Export the bundle again: this vidseg writes one.",
    "int8": "Export the bundle again, with --calib.",
    "int8-ranges": "Export the bundle again, with --calib and --dla.",
}
"""What to do where a bundle has no such variant."""

_GRAPHS: Mapping[tuple[Precision, str], tuple[tuple[str, ...], tuple[str, ...]]] = {
    ("fp32", "weak"): (("float",), ()),
    ("fp16", "weak"): (("float",), ("FP16",)),
    ("int8", "weak"): (("int8",), ("INT8", "FP16")),
    ("fp32", "strong"): (("float",), ()),
    ("fp16", "strong"): (("fp16",), ()),
    ("int8", "strong"): (("int8-fp16", "int8"), ()),
}
"""Variants that serve, the best first, and the builder's flags."""


Magnitude = Annotated[float, msgspec.Meta(gt=0, le=3.4e38)]  # fits a float32


class Ranges(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a graph without Q/DQ is quantized by; a member of the bundle beside the graph, as JSON.

    Attributes:
        format: of the member.
        ranges: largest magnitude of activations by name.
        in_float: outputs of layers that stay float all the same.
    """

    format: Literal[1]
    ranges: dict[str, Magnitude]
    in_float: tuple[str, ...] = msgspec.field(name="float")


@dataclass(frozen=True, slots=True)
class Lowering:
    """A graph, and how it is computed.

    Attributes:
        variant: of the bundle.
        file: the member with the graph.
        typing: `weak`: flags choose the data types; `strong`: the graph does.
        flags: names of the builder's.
        ranges: for INT8 without Q/DQ; None otherwise.
    """

    variant: str
    file: str
    typing: Literal["weak", "strong"]
    flags: tuple[str, ...]
    ranges: Ranges | None = None


def lowering_of(bundle: Bundle, settings: BuildSettings, abilities: Abilities) -> Lowering:
    """Choose the graph of a bundle for what is wanted and what the library offers.

    Raises:
        EngineError: the bundle has no such graph, its ranges are damaged, or the library has no way to compute it.
    """
    if settings.dla_core is not None:
        return _for_dla(bundle, settings, abilities)
    typing: Literal["weak", "strong"] = "weak" if abilities.weakly_typed else "strong"
    if typing == "strong" and not abilities.strongly_typed:
        raise EngineError(
            "this TensorRT builds no plans",
            "neither flags for data types nor strong typing",
            "Install TensorRT 8.5 to 11.",
        )
    names, flags = _GRAPHS[settings.precision, typing]
    variant, file = _graph(bundle, names, settings.precision)
    return Lowering(variant, file, typing, flags)


def _for_dla(bundle: Bundle, settings: BuildSettings, abilities: Abilities) -> Lowering:
    if not (abilities.weakly_typed and abilities.ranges):
        raise EngineError(
            "this TensorRT cannot be told the data types of a DLA's layers",
            "strongly typed networks only",
            "Leave out the DLA, or take TensorRT 8.6 to 10.7.",
        )
    if settings.precision == "fp16":
        variant, file = _graph(bundle, ("float",), "fp16")
        return Lowering(variant, file, "weak", ("FP16",))
    variant, file = _graph(bundle, ("int8-ranges",), "int8 on a DLA")
    ranges = _ranges(bundle, file.removesuffix(".onnx") + ".json")
    return Lowering(variant, file, "weak", ("INT8", "FP16", "PREFER_PRECISION_CONSTRAINTS"), ranges)


def _graph(bundle: Bundle, names: tuple[str, ...], what: str) -> tuple[str, str]:
    """Name and file of the first variant that is there."""
    files = {variant.name: variant.file for variant in bundle.manifest.variants}
    for name in names:
        if name in files:
            return name, files[name]
    raise EngineError(
        f"{bundle.path}: no variant `{names[0]}`, which TensorRT needs for {what}", ", ".join(files), _AGAIN[names[-1]]
    )


def _ranges(bundle: Bundle, member: str) -> Ranges:
    content = bundle.members.get(member)
    if content is None:
        raise EngineError(f"{bundle.path}: no ranges for int8 on a DLA", f"no {member}", _AGAIN["int8-ranges"])
    try:
        return msgspec.json.decode(content, type=Ranges)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise EngineError(f"{bundle.path}: {member} is damaged", str(error)[:200], _AGAIN["int8-ranges"]) from error
