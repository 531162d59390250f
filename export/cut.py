"""Finding the last step of a model that the runtime does faster: bilinear upsampling of the scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from vidseg.export.graph import attribute_of, dims_of
from vidseg.export.head import Head
from vidseg.export.model import Layout, LoadedModel, constant_of, source_of
from vidseg.runtime.manifest import UpsamplingSpec
from vidseg.runtime.upsampling import Alignment

if TYPE_CHECKING:
    import onnx

MIN_STRIDE = 2
"""A smaller one leaves nothing to be gained."""

UPSAMPLING_WE_ADD: Alignment = "half_pixel"
"""Where a model gives coarse scores and does not say how they are to be made larger."""

_ALIGNMENTS: dict[str, Alignment] = {
    "half_pixel": "half_pixel",
    "pytorch_half_pixel": "half_pixel",  # differs for an output of one pixel only
    "align_corners": "align_corners",
    "asymmetric": "asymmetric",
}
_SOFTMAX = ("Softmax", "LogSoftmax")

PROBABILITIES = ("Softmax", "Sigmoid", "HardSigmoid")
"""What gives probabilities by class; a sigmoid by class does, of classes that do not exclude each other."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a graph ends when its last upsampling is left out.

    Attributes:
        tensor: name of the scores, float32, one picture.
        layout: where their classes are.
        spec: what is left to do.
    """

    tensor: str
    layout: Layout
    spec: UpsamplingSpec


def find_cut(model: LoadedModel, head: Head) -> Cut | None:
    """The cut of a model whose scores are upsampled last, by itself or, where it gives coarse ones, by our graph.

    None where there is nothing to gain: a sigmoid, scores at full size, another kind of resize, or a stride below 2.
    """
    if head.kind != "scores":
        return None
    graph = model.graph_model.graph
    if head.grid_wh == model.size_wh:
        cut = _cut_at_resize(graph, head, model.size_wh)
    else:
        cut = _cut(graph, head.output, head.layout, UPSAMPLING_WE_ADD, head.grid_wh)
    if cut is None or any(size < MIN_STRIDE * grid for size, grid in zip(model.size_wh, cut.spec.grid_wh, strict=True)):
        return None
    return cut


def _cut_at_resize(graph: onnx.GraphProto, head: Head, size_wh: tuple[int, int]) -> Cut | None:
    """Through what does not change the winner, back to a Resize that makes whole planes larger."""
    node = source_of(graph, head.output, ("Identity", "Transpose", *_SOFTMAX))
    if node.op_type != "Resize" or attribute_of(node, "mode") != b"linear" or attribute_of(node, "antialias", 0):
        return None
    alignment = _ALIGNMENTS.get((attribute_of(node, "coordinate_transformation_mode") or b"half_pixel").decode())
    before, after = _shape(graph, node.input[0]), _shape(graph, node.output[0])
    planes = [1, head.classes]
    if alignment is None or before[:2] != planes or after != [*planes, size_wh[1], size_wh[0]] or len(before) != 4:
        return None
    if not _scales_are_those_of_the_sizes(graph, node, before, after):
        return None
    return _cut(graph, node.input[0], "NCHW", alignment, (before[3], before[2]))


def _cut(graph: onnx.GraphProto, tensor: str, layout: Layout, alignment: Alignment, grid_wh: tuple[int, int]) -> Cut:
    is_share = source_of(graph, tensor, ("Identity", "Transpose")).op_type in PROBABILITIES
    kind: Literal["logits", "probabilities"] = "probabilities" if is_share else "logits"
    return Cut(tensor, layout, UpsamplingSpec(grid_wh=grid_wh, alignment=alignment, scores=kind))


def _scales_are_those_of_the_sizes(graph: onnx.GraphProto, node: Any, before: list[int], after: list[int]) -> bool:
    """False for a Resize by scales that its rounded output size does not show: 2.01 and 2 look alike."""
    if len(node.input) < 3 or not node.input[2]:
        return True  # it is given sizes
    scales = constant_of(graph, node.input[2])
    if scales is None or scales.size == 0:
        return scales is not None
    return all(abs(scale * old - new) < 1e-4 for scale, old, new in zip(scales, before, after, strict=True))


def _shape(graph: onnx.GraphProto, tensor: str) -> list[int]:
    for value in (*graph.value_info, *graph.output):
        if value.name == tensor:
            return [dim or 0 for dim in dims_of(value)]
    return []
