"""Loading a model that nobody vouches for, and bringing it into the form that the rest works on.

After `load_model` the graph is checked, self-contained, of opset 13..17, with one float32 image input of a fixed size
and constants folded.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from numpy.typing import NDArray

from vidseg.export.graph import dims_of, inner_nodes
from vidseg.export.norms import without_norms
from vidseg.export.opset import MIN_OPSET, NEWEST_OPSET, expanded, lowered, opset_of, raised
from vidseg.export.unpool import without_indices
from vidseg.runtime.bundle import sha256_of
from vidseg.runtime.decoding import CLASS_MAP, CONFIDENCE, SCORES
from vidseg.runtime.engines.graph import INPUT
from vidseg.runtime.engines.onnxruntime import import_onnxruntime
from vidseg.runtime.errors import ConfigurationError, ModelError

if TYPE_CHECKING:
    import onnx

Layout: TypeAlias = Literal["NCHW", "NHWC"]

RESERVED = frozenset({INPUT, CLASS_MAP, CONFIDENCE, SCORES})
PREFIX = "vidseg_"
"""Of the names of all nodes and tensors that fusing adds."""

MIN_IR, MAX_IR = 7, 8
MAX_BYTES = 2_000_000_000  # of a protobuf message
MAX_SLIMS = 8
_STANDARD = ("", "ai.onnx")


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A model ready to be fused.

    Attributes:
        name: the file's name, or what the caller calls the model.
        sha256: of the file, and of the files that hold its weights.
        original: the file's model, with weights taken off its inputs; what results are compared with.
        graph_model: the same after conversion and folding, without names that fusing needs for itself.
        renamed: new names of tensors in `graph_model` by those in `original`, where they differ.
        input_name: of the image input in `original`.
        layout: of the image input.
        size_wh: of the image input, in pixels.
    """

    name: str
    sha256: str
    original: onnx.ModelProto
    graph_model: onnx.ModelProto
    renamed: dict[str, str]
    input_name: str
    layout: Layout
    size_wh: tuple[int, int]


def load_model(path: Path, size_wh: tuple[int, int] | None, name: str | None = None) -> LoadedModel:
    """Read, check and prepare an ONNX file.

    Args:
        path: the file; external data is read from its own folder.
        size_wh: the input's size; None where the model has a fixed one.
        name: what errors and the bundle call the model; None for the file's name.

    Raises:
        ModelError: missing, damaged, with an unknown operator, or with inputs that are no single image.
    """
    model, checksum = read_onnx(path)
    shown = name or str(path)
    _check_operators(shown, model)
    _take_weights_off_inputs(model)
    image = _image_input(shown, model)
    layout = _layout_of(shown, image)
    size_wh = _fix_size(shown, image, layout, size_wh)
    prepared = _prepared(shown, model)
    renamed = _rename_reserved(prepared.graph)
    return LoadedModel(name or path.name, checksum, model, prepared, renamed, image.name, layout, size_wh)


def _rename_reserved(graph: onnx.GraphProto) -> dict[str, str]:
    """Give tensors another name that are called like the inputs and outputs of a bundle's graph, or like our own."""
    renamed: dict[str, str] = {}

    def new(name: str) -> str:
        if name in RESERVED or name.startswith(PREFIX):
            return renamed.setdefault(name, f"model_{len(renamed)}_{name.replace(PREFIX, '')}")
        return name

    def walk(inner: onnx.GraphProto) -> None:
        for value in (*inner.input, *inner.output, *inner.value_info, *inner.initializer):
            value.name = new(value.name)
        for sparse in inner.sparse_initializer:
            sparse.values.name = new(sparse.values.name)
        for node in inner.node:
            node.input[:] = [new(name) for name in node.input]
            node.output[:] = [new(name) for name in node.output]
            for attribute in node.attribute:
                for subgraph in (attribute.g, *attribute.graphs):
                    walk(subgraph)

    walk(graph)
    return renamed


def producers_of(graph: onnx.GraphProto) -> dict[str, Any]:
    """The node that makes each tensor, by the tensor's name."""
    return {output: node for node in graph.node for output in node.output}


def source_of(graph: onnx.GraphProto, tensor: str, through: tuple[str, ...]) -> Any:
    """The node that a tensor comes from, looking through operators of some kinds along their first input."""
    producers = producers_of(graph)
    node = producers[tensor]
    while node.op_type in through and node.input[0] in producers:
        node = producers[node.input[0]]
    return node


def constant_of(graph: onnx.GraphProto, tensor: str) -> NDArray[Any] | None:
    """The value of a weight; None for what is computed."""
    import onnx

    for weight in graph.initializer:
        if weight.name == tensor:
            value: NDArray[Any] = onnx.numpy_helper.to_array(weight)
            return value
    return None


def _shape(value: Any) -> Any:
    return value.type.tensor_type.shape.dim


def check_packages() -> None:
    """Refuse to go on without the packages that making graphs needs.

    Raises:
        ConfigurationError: one is missing.
    """
    missing = [module for module in ("onnx", "onnx_ir", "onnxslim") if importlib.util.find_spec(module) is None]
    if missing:
        raise ConfigurationError(
            "ONNX graphs need more packages", f"no {', '.join(missing)}", 'Install them: pip install "vidseg[export]".'
        )


def read_onnx(path: Path) -> tuple[onnx.ModelProto, str]:
    """An ONNX file with its external weights, unchecked, and the sha256 of all of it.

    Raises:
        ModelError: missing, too large, or no ONNX model.
    """
    import onnx
    from google.protobuf.message import DecodeError

    if not path.exists():
        raise ModelError(f"{path}: there is no such file", "", "Check the path.")
    if not path.is_file():
        found = "a folder" if path.is_dir() else "a device or a pipe"
        raise ModelError(f"{path}: not an ONNX model", found, "Give an .onnx file.")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ModelError(f"{path}: too large", f"{size} bytes", "Store the weights as external data.")
    try:
        model = onnx.load(str(path), load_external_data=False)
        files = [path, *sorted({path.parent / name for name in _external_files(model)})]
        onnx.load_external_data_for_model(model, str(path.parent))  # refuses what lies outside of the folder
        checksum = sha256_of(b"".join(bytes.fromhex(sha256_of(file.read_bytes())) for file in files))
        checksum = checksum if len(files) > 1 else sha256_of(path.read_bytes())
    except DecodeError as error:
        raise ModelError(f"{path}: not an ONNX model, or a truncated one", f"{size} bytes", "Copy it again.") from error
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(f"{path}: cannot be read", _first_line(error), "Keep external data beside it.") from error
    if not model.graph.node or not model.opset_import:
        found = f"a file of {size} bytes without a graph" if size else "an empty file"
        raise ModelError(f"{path}: not an ONNX model", found, "Give an .onnx file.")
    return model, checksum


def _external_files(model: onnx.ModelProto) -> set[str]:
    """Names of the files that hold weights. Sparse and attribute tensors are always in the model itself."""
    return {
        entry.value for tensor in model.graph.initializer for entry in tensor.external_data if entry.key == "location"
    }


def _check_operators(shown: str, model: onnx.ModelProto) -> None:
    import onnx

    functions = {(function.domain, function.name) for function in model.functions}
    nodes = [node for outer in model.graph.node for node in (outer, *inner_nodes(outer))]
    for node in nodes:
        where = f"node {node.name or node.output[0]!r}" if node.output else "a node"
        if (node.domain, node.op_type) in functions:
            continue
        if node.domain not in _STANDARD:
            raise ModelError(
                f"{shown}: {where} is of an unknown domain",
                f"{node.domain}.{node.op_type}",
                "Export the model with standard ONNX operators only.",
            )
        if not onnx.defs.has(node.op_type):
            raise ModelError(f"{shown}: {where} has an unknown operator", node.op_type, "Use standard ONNX operators.")
    if not opset_of(model):
        raise ModelError(f"{shown}: no version of the standard operators is given", "none")
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise ModelError(f"{shown}: not a valid ONNX model", _first_line(error), "Export it again.") from error


def _take_weights_off_inputs(model: onnx.ModelProto) -> None:
    weights = {tensor.name for tensor in model.graph.initializer}
    images = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(images)


def _image_input(shown: str, model: onnx.ModelProto) -> Any:
    import onnx

    inputs = list(model.graph.input)
    described = ", ".join(f"{value.name} {_described(value)}" for value in inputs) or "none"
    if len(inputs) != 1:
        raise ModelError(f"{shown}: the model needs one input, an image", described, "Export it without other inputs.")
    image = inputs[0]
    if image.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        raise ModelError(f"{shown}: the input is not float32", described, "Export the float model.")
    if len(_shape(image)) != 4:
        raise ModelError(f"{shown}: the input has no batch axis", described, "Export it with a batch axis of 1.")
    if dims_of(image)[0] not in (None, 1):
        raise ModelError(f"{shown}: the batch is fixed", described, "Export it with a batch of 1, or a dynamic one.")
    return image


def _layout_of(shown: str, image: Any) -> Layout:
    dims = dims_of(image)
    if dims[1] == 3 and dims[3] != 3:
        return "NCHW"
    if dims[3] == 3 and dims[1] != 3:
        return "NHWC"
    if dims[1] is None and dims[3] is None:
        return "NCHW"
    raise ModelError(
        f"{shown}: the input has not 3 channels", f"{image.name} {_described(image)}", "Give a colour model."
    )


def _fix_size(shown: str, image: Any, layout: Layout, size_wh: tuple[int, int] | None) -> tuple[int, int]:
    dims = dims_of(image)
    fixed = (dims[3], dims[2]) if layout == "NCHW" else (dims[2], dims[1])
    if size_wh is None:
        if fixed[0] is None or fixed[1] is None:
            raise ModelError(f"{shown}: the input's size is open", _described(image), "Give it with --size.")
        size_wh = (fixed[0], fixed[1])
    if any(have not in (None, want) for have, want in zip(fixed, size_wh, strict=True)):
        raise ModelError(
            f"{shown}: the input's size is fixed",
            f"--size {size_wh[0]}x{size_wh[1]} for {fixed[0]}x{fixed[1]}",
            f"Use --size {fixed[0]}x{fixed[1]}, or export the model at the other size.",
        )
    width, height = size_wh
    shape = (1, 3, height, width) if layout == "NCHW" else (1, height, width, 3)
    for dim, value in zip(_shape(image), shape, strict=True):
        dim.dim_value = value
    return size_wh


def _prepared(shown: str, original: onnx.ModelProto) -> onnx.ModelProto:
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(original)
    for value in model.graph.output:  # stale symbols would contradict the fixed input
        value.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    try:
        model = _slimmed(expanded(raised(model)))
        model = lowered(onnx.shape_inference.infer_shapes(model, data_prop=True))
        model = without_indices(without_norms(model))
        model.ir_version = min(max(model.ir_version, MIN_IR), MAX_IR)
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        onnx.checker.check_model(model)
    except ModelError:
        raise
    except Exception as error:  # converter, optimizer and checker each raise their own kinds
        raise ModelError(
            f"{shown}: opset {opset_of(original)} cannot be brought to {MIN_OPSET}..{NEWEST_OPSET}, or the graph does "
            "not add up",
            _first_line(error),
            f"Export it with opset {NEWEST_OPSET}.",
        ) from error
    return model


def _slimmed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Constants folded and dead nodes gone, as often as that changes something: one call ends after ten rounds, too few
    for the chains of Shape, Slice and Concat that attention has."""
    import_onnxruntime()  # onnxslim imports it too, with its telemetry
    import onnxslim

    for _ in range(MAX_SLIMS):
        before = len(model.graph.node)
        model = onnxslim.slim(model)
        if len(model.graph.node) == before:
            break
    return model


def _described(value: Any) -> str:
    pairs = zip(_shape(value), dims_of(value), strict=True)
    dims = [dim.dim_param or "?" if fixed is None else fixed for dim, fixed in pairs]
    return "(" + ", ".join(str(dim) for dim in dims) + ")"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
