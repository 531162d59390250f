"""Finding out what a model's output means: which axis holds the classes, at what stride, and as what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from vidseg.export.graph import dims_of
from vidseg.export.model import Layout, LoadedModel, source_of
from vidseg.runtime.errors import ModelError
from vidseg.runtime.frame import UNKNOWN

if TYPE_CHECKING:
    import onnx

HeadKind: TypeAlias = Literal["scores", "sigmoid"]

_FLOAT = 1  # TensorProto.FLOAT
_MOVES = ("Transpose", "Reshape", "Identity", "Squeeze", "Unsqueeze")
"""Operators that move values about and leave them as they are."""


@dataclass(frozen=True, slots=True)
class Head:
    """A model's output.

    Attributes:
        output: name of the tensor.
        kind: `scores` by class, of which the largest wins (logits or softmax), or one `sigmoid` probability of the
            foreground.
        layout: where the channels are.
        classes: how many there are; 2 for a sigmoid.
        grid_wh: size of the output.
    """

    output: str
    kind: HeadKind
    layout: Layout
    classes: int
    grid_wh: tuple[int, int]


def find_head(model: LoadedModel, output: str | None, expected_classes: int | None) -> Head:
    """Read the head from the graph's shapes.

    Args:
        model: a loaded model.
        output: the name of the output; None where there is one only.
        expected_classes: how many class names there are; decides where the shapes do not.

    Raises:
        ModelError: several outputs and no name, or an output that is no map of scores.
    """
    graph = model.graph_model.graph
    value = _named_output(model, output)
    dims = dims_of(value)
    shown = f"{value.name} ({', '.join('?' if dim is None else str(dim) for dim in dims)})"
    if value.type.tensor_type.elem_type != _FLOAT:
        raise ModelError(
            f"{model.name}: the output is no map of scores",
            f"{shown} of whole numbers",
            "Export it without its ArgMax.",
        )
    if len(dims) != 4 or None in dims or dims[0] != 1:
        raise ModelError(f"{model.name}: the output is no map of scores", shown, "Name another one with --output.")
    shape = (dims[1] or 0, dims[2] or 0, dims[3] or 0)
    layout = _layout_of_scores(model, shape, expected_classes)
    if layout is None:
        raise ModelError(
            f"{model.name}: the output fits the input's {model.size_wh[0]}x{model.size_wh[1]} in no layout",
            shown,
            "Name another one with --output.",
        )
    channels, grid_wh = (shape[0], (shape[2], shape[1])) if layout == "NCHW" else (shape[2], (shape[1], shape[0]))
    if channels == 1:
        if source_of(graph, value.name, (*_MOVES, "Resize")).op_type not in {"Sigmoid", "HardSigmoid"}:
            raise ModelError(f"{model.name}: one channel that is no sigmoid", shown, "End the model with a Sigmoid.")
        return Head(value.name, "sigmoid", layout, 2, grid_wh)
    if channels > UNKNOWN:
        raise ModelError(f"{model.name}: too many classes", f"{channels}", f"At most {UNKNOWN} fit in 8 bits.")
    return Head(value.name, "scores", layout, channels, grid_wh)


def scores_before_softmax(graph: onnx.GraphProto, head: Head) -> None:
    """Take a softmax at the very end of a graph out, where only moves of values stand behind it.

    The largest score has the largest probability, so the class stays the same, and rounding can no longer make two
    classes equal.
    """
    node = source_of(graph, head.output, ("Transpose", "Identity"))
    if node.op_type not in {"Softmax", "LogSoftmax"}:
        return
    before, after = node.input[0], node.output[0]
    readers = [reader for reader in graph.node if after in reader.input]
    if after == head.output:
        producer = next((other for other in graph.node if before in other.output), None)
        others = [reader for reader in graph.node if before in reader.input and reader is not node]
        if producer is None or others:
            return
        producer.output[list(producer.output).index(before)] = head.output
    else:
        for reader in readers:
            reader.input[list(reader.input).index(after)] = before
    graph.node.remove(node)


def _named_output(model: LoadedModel, output: str | None) -> Any:
    original = {new: old for old, new in model.renamed.items()}
    outputs = {original.get(value.name, value.name): value for value in model.graph_model.graph.output}
    listed = ", ".join(f"{name} {dims_of(value)}".replace("None", "?") for name, value in outputs.items())
    if output is None and len(outputs) > 1:
        raise ModelError(f"{model.name}: the model has several outputs", listed, "Name one with --output.")
    if output is not None and output not in outputs:
        raise ModelError(f"{model.name}: no output is named {output!r}", listed, "Name one of these.")
    return outputs[output] if output else next(iter(outputs.values()))


def _layout_of_scores(model: LoadedModel, shape: tuple[int, int, int], expected: int | None) -> Layout | None:
    planes_first = _same_aspect((shape[2], shape[1]), model.size_wh)
    planes_last = _same_aspect((shape[1], shape[0]), model.size_wh)
    if planes_first and planes_last:
        if expected is not None and (shape[0] == expected) != (shape[2] == expected):
            return "NCHW" if shape[0] == expected else "NHWC"
        return model.layout
    if planes_first:
        return "NCHW"
    return "NHWC" if planes_last else None


def _same_aspect(grid_wh: tuple[int, int], size_wh: tuple[int, int]) -> bool:
    """True where a grid is the input at one stride, rounded up or down at each of up to six halvings."""
    strides = [size / grid for size, grid in zip(size_wh, grid_wh, strict=True)]
    low, high = min(strides), max(strides)
    return min(grid_wh) > 1 and low > 0.1 and high < 66 and high - low <= high * max(1 / grid_wh[0], 1 / grid_wh[1])
