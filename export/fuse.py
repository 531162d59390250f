"""Putting pre- and post-processing into the graph: camera bytes in, class ids out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vidseg.export.cut import PROBABILITIES, UPSAMPLING_WE_ADD, Cut
from vidseg.export.graph import inner_nodes
from vidseg.export.head import Head, scores_before_softmax
from vidseg.export.model import MAX_IR, PREFIX, Layout, LoadedModel, source_of
from vidseg.runtime.decoding import CLASS_MAP, CONFIDENCE, SCORES
from vidseg.runtime.engines.graph import INPUT
from vidseg.runtime.errors import ModelError
from vidseg.runtime.manifest import InputSpec

if TYPE_CHECKING:
    import onnx

IMAGE_PREFIX = f"{PREFIX}{INPUT}/"
"""Of the names of the nodes that bring a picture into the form that the model takes."""


@dataclass(frozen=True, slots=True, eq=False)
class Normalization:
    """Preprocessing in the order of the camera's channels: (pixel - shift) * factor, blue, green, red."""

    shift: NDArray[np.float32]
    factor: NDArray[np.float32]
    flip: bool

    @classmethod
    def of(cls, spec: InputSpec) -> Normalization:
        """From (value * scale - mean) / std of channels in the order `color`."""
        flip = spec.color == "RGB"
        order = slice(None, None, -1 if flip else 1)
        shift = np.asarray(spec.mean, np.float64)[order] / spec.scale
        factor = spec.scale / np.asarray(spec.std, np.float64)[order]
        return cls(shift.astype(np.float32), factor.astype(np.float32), flip)


def fuse(model: LoadedModel, head: Head, cut: Cut | None, spec: InputSpec) -> bytes:
    """The whole chain as one serialized graph of the contract in docs/bundle.md, with every output that it has.

    Channel order and scale go into the weights of the first convolution where the image feeds nothing else; the mean
    stays a subtraction, because a padded convolution pads with zeros *after* it. The same input gives the same bytes.
    """
    import onnx

    fused = onnx.ModelProto()
    fused.CopyFrom(model.graph_model)
    graph = fused.graph
    if head.kind == "scores" and head.grid_wh == model.size_wh:
        scores_before_softmax(graph, head)
    before = _preprocessing(graph, model, Normalization.of(spec))
    after = [*_postprocessing(graph, model, head), *_confidence(graph, model, head, cut), *_scores(graph, cut)]
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    width, height = model.size_wh
    _replace(graph.input, onnx.helper.make_tensor_value_info(INPUT, onnx.TensorProto.UINT8, [1, height, width, 3]))
    _replace(graph.output, *_outputs(model, head, cut))
    del graph.value_info[:]
    del fused.metadata_props[:]
    graph.name, graph.doc_string, fused.doc_string = "vidseg", "", ""
    fused.producer_name, fused.producer_version = "vidseg", ""
    fused.ir_version = min(fused.ir_version, MAX_IR)
    _drop_unused(graph)
    try:
        onnx.checker.check_model(onnx.shape_inference.infer_shapes(fused, strict_mode=True))
    except Exception as error:  # checker and inference each raise their own kinds
        raise ModelError(f"{model.name}: the fused graph does not add up", str(error).strip()[:200]) from error
    content: bytes = fused.SerializeToString(deterministic=True)
    return content


def _preprocessing(graph: onnx.GraphProto, model: LoadedModel, norm: Normalization) -> list[Any]:
    import onnx

    chain = _Chain(graph, INPUT)
    chain.add("Cast", to=onnx.TensorProto.FLOAT)
    axis, shape = 3, (1, 1, 1, 3)
    if model.layout == "NCHW":  # first: broadcasting along whole planes is several times faster
        chain.add("Transpose", perm=[0, 3, 1, 2])
        axis, shape = 1, (1, 3, 1, 1)
    if norm.shift.any():
        chain.add("Sub", chain.constant("mean", norm.shift.reshape(shape)))
    if not _fold_into_first_conv(graph, model, norm):
        if (norm.factor != 1).any():
            chain.add("Mul", chain.constant("scale", norm.factor.reshape(shape)))
        if norm.flip:
            chain.add("Gather", chain.constant("order", np.array([2, 1, 0], np.int64)), axis=axis)
    return chain.end_as(model.graph_model.graph.input[0].name)


def _fold_into_first_conv(graph: onnx.GraphProto, model: LoadedModel, norm: Normalization) -> bool:
    import onnx

    if model.layout != "NCHW":
        return False
    input_name = model.graph_model.graph.input[0].name
    readers = [node for node in graph.node if input_name in node.input]
    if len(readers) != 1 or readers[0].op_type != "Conv":
        return False
    conv = readers[0]
    weights = {tensor.name: tensor for tensor in graph.initializer}
    shared = sum(conv.input[1] in node.input for node in graph.node) > 1
    if conv.input[1] not in weights or shared:
        return False
    kernel = onnx.numpy_helper.to_array(weights[conv.input[1]])
    if kernel.shape[1] != 3:  # a grouped convolution
        return False
    if norm.flip:
        kernel = kernel[:, ::-1]
    kernel = kernel * norm.factor[None, :, None, None]
    weights[conv.input[1]].CopyFrom(
        onnx.numpy_helper.from_array(np.ascontiguousarray(kernel, np.float32), conv.input[1])
    )
    return True


def _postprocessing(graph: onnx.GraphProto, model: LoadedModel, head: Head) -> list[Any]:
    import onnx

    chain = _Chain(graph, head.output)
    chain.to_planes(head.layout)
    if head.grid_wh != model.size_wh:
        channels = 1 if head.kind == "sigmoid" else head.classes
        sizes = chain.constant("sizes", np.array([1, channels, model.size_wh[1], model.size_wh[0]], np.int64))
        chain.add("Resize", "", "", sizes, mode="linear", coordinate_transformation_mode=UPSAMPLING_WE_ADD)
    if head.kind == "sigmoid":
        chain.add("Greater", chain.constant("threshold", np.array(0.5, np.float32)))
        chain.add("Cast", to=onnx.TensorProto.FLOAT)
        shape = np.array([1, model.size_wh[1], model.size_wh[0]], np.int64)
        chain.add("Reshape", chain.constant("shape", shape))
    else:
        chain.add("ArgMax", axis=1, keepdims=0)
        chain.add("Cast", to=onnx.TensorProto.FLOAT)  # TensorRT 8.5 casts no int64 to uint8
    chain.add("Cast", to=onnx.TensorProto.UINT8)
    return chain.end_as(CLASS_MAP)


def _confidence(graph: onnx.GraphProto, model: LoadedModel, head: Head, cut: Cut | None) -> list[Any]:
    """The largest probability where the scores are coarse, then bilinear, in 255ths."""
    import onnx

    grid_wh = cut.spec.grid_wh if cut else head.grid_wh
    chain = _Chain(graph, cut.tensor if cut else head.output, "confidence_")
    chain.to_planes(cut.layout if cut else head.layout)
    if head.kind == "sigmoid":
        other = _Chain(graph, chain.tensor, "background_")
        other.add("Neg")
        other.add("Add", other.constant("one", np.array(1, np.float32)))
        chain.nodes += other.nodes
        chain.add("Max", other.tensor)
    else:
        if not _are_probabilities(graph, head, cut):
            chain.add("Softmax", axis=1)
        chain.add("ReduceMax", axes=[1], keepdims=1)
    if grid_wh != model.size_wh:
        alignment = cut.spec.alignment if cut else UPSAMPLING_WE_ADD
        sizes = chain.constant("sizes", np.array([1, 1, model.size_wh[1], model.size_wh[0]], np.int64))
        chain.add("Resize", "", "", sizes, mode="linear", coordinate_transformation_mode=alignment)
    chain.add("Mul", chain.constant("levels", np.array(255, np.float32)))
    chain.add("Round")
    chain.add("Reshape", chain.constant("shape", np.array([1, model.size_wh[1], model.size_wh[0]], np.int64)))
    chain.add("Cast", to=onnx.TensorProto.UINT8)
    return chain.end_as(CONFIDENCE)


def _are_probabilities(graph: onnx.GraphProto, head: Head, cut: Cut | None) -> bool:
    if cut is not None:
        return cut.spec.scores == "probabilities"
    return source_of(graph, head.output, ("Identity", "Transpose")).op_type in PROBABILITIES


def _scores(graph: onnx.GraphProto, cut: Cut | None) -> list[Any]:
    if cut is None:
        return []
    chain = _Chain(graph, cut.tensor, "scores_")
    chain.add("Identity")
    chain.to_planes(cut.layout)
    return chain.end_as(SCORES)


def _outputs(model: LoadedModel, head: Head, cut: Cut | None) -> list[Any]:
    import onnx

    width, height = model.size_wh
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, [1, height, width])
        for name in (CLASS_MAP, CONFIDENCE)
    ]
    if cut is not None:
        grid_width, grid_height = cut.spec.grid_wh
        shape = [1, head.classes, grid_height, grid_width]
        values.append(onnx.helper.make_tensor_value_info(SCORES, onnx.TensorProto.FLOAT, shape))
    return values


class _Chain:
    """A row of nodes, each fed by the one before it."""

    def __init__(self, graph: onnx.GraphProto, start: str, prefix: str = "") -> None:
        self._graph = graph
        self._prefix = PREFIX + prefix
        self.tensor = start
        self.nodes: list[Any] = []

    def constant(self, name: str, value: NDArray[Any]) -> str:
        import onnx

        self._graph.initializer.append(onnx.numpy_helper.from_array(value, self._prefix + name))
        return self._prefix + name

    def add(self, operator: str, *more: str, **attributes: Any) -> None:
        import onnx

        output = f"{self._prefix}{self.tensor.removeprefix(self._prefix).split('/')[0]}/{operator}{len(self.nodes)}"
        node = onnx.helper.make_node(operator, [self.tensor, *more], [output], name=output, **attributes)
        self.nodes.append(node)
        self.tensor = output

    def to_planes(self, layout: Layout) -> None:
        if layout == "NHWC":  # planes are faster to resize and to compare
            self.add("Transpose", perm=[0, 3, 1, 2])

    def end_as(self, name: str) -> list[Any]:
        self.nodes[-1].output[0] = name
        return self.nodes


def _replace(values: Any, *only: Any) -> None:
    del values[:]
    values.extend(only)


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and weights that nothing reads: those behind outputs that were not chosen."""
    wanted = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= {name for inner in (node, *inner_nodes(node)) for name in inner.input if name}
    del graph.node[:]
    graph.node.extend(reversed(kept))
    weights = [tensor for tensor in graph.initializer if tensor.name in wanted]
    del graph.initializer[:]
    graph.initializer.extend(weights)
