"""Bringing a model to an opset that every engine knows: 13 to 17."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.errors import ModelError

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnx import ModelProto
    from onnx.defs import OpSchema

MIN_OPSET, NEWEST_OPSET = 13, 17


def raised(model: ModelProto) -> ModelProto:
    """The same model in opset 13 where it was older: ONNX's own converter knows the way up."""
    from onnx import version_converter

    return version_converter.convert_version(model, MIN_OPSET) if opset_of(model) < MIN_OPSET else model


def expanded(model: ModelProto) -> ModelProto:
    """The same model with its functions, and operators that opset 17 lacks, replaced by what they are defined by."""
    from onnx import TensorProto, defs, helper, inliner, shape_inference

    model = inliner.inline_local_functions(model) if model.functions else model
    opset = opset_of(model)
    unknown = set()
    for node in model.graph.node:
        schema = defs.get_schema(node.op_type, opset, "")
        defined = schema.has_function or schema.has_context_dependent_function  # type: ignore[attr-defined]
        if defined and not defs.has(node.op_type, NEWEST_OPSET, ""):
            unknown.add(node.op_type)
    if not unknown:
        return model
    known = {value.name for value in (*model.graph.input, *model.graph.value_info)}
    for tensor in model.graph.initializer:  # the inliner wants to know the type of every input
        if tensor.name not in known:
            model.graph.value_info.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    functions = [("", name) for name in sorted(unknown)]
    model = inliner.inline_selected_functions(
        shape_inference.infer_shapes(model), functions, inline_schema_functions=True
    )
    for node in model.graph.node:  # floats are float32 here; a definition also serves other types
        if node.op_type == "CastLike":
            node.op_type = "Cast"
            del node.input[1:], node.attribute[:]
            node.attribute.append(helper.make_attribute("to", TensorProto.FLOAT))
    return model


def opset_of(model: ModelProto) -> int:
    """The version of ONNX's own operators that a model uses; 0 where it names none."""
    return max((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), default=0)


def lowered(model: ModelProto) -> ModelProto:
    """The same model in opset 17 where it was newer; its shapes are known and its constants folded.

    Raises:
        ModelError: a node has no equal in opset 17.
    """
    import onnx_ir as ir

    if opset_of(model) <= NEWEST_OPSET:
        return model
    graph = ir.from_proto(model)
    lower_opset(graph)
    return ir.to_proto(graph)


def lower_opset(model: ir.Model) -> None:
    """Rewrite, in place, what later opsets write differently; then the model is of opset 17.

    A node whose operator has not changed since 17 stays. One with new attributes that say what opset 17 does anyway
    loses them; the rules below, by the change log of ONNX, cover the rest.

    Raises:
        ModelError: a node has no equal in opset 17.
    """
    from onnx import defs

    opset = model.opset_imports.get("", 0)
    if opset <= NEWEST_OPSET:
        return
    for node in list(model.graph.all_nodes()):
        try:
            old = defs.get_schema(node.op_type, NEWEST_OPSET, "")
        except defs.SchemaError as error:
            raise _no_equal(node, f"{node.op_type} came with a later one") from error
        new = defs.get_schema(node.op_type, opset, "")
        if new.since_version == old.since_version:
            continue
        if rule := _RULES.get(node.op_type):
            rule(node)
        _drop_attributes(node, old, new)
        if len(node.inputs) > old.max_input:
            raise _no_equal(node, f"{len(node.inputs)} inputs")
    model.opset_imports[""] = NEWEST_OPSET


def _no_equal(node: ir.Node, got: str) -> ModelError:
    return ModelError(
        f"node {node.name} ({node.op_type}) has no equal in opset {NEWEST_OPSET}",
        got,
        f"Export the model with opset {NEWEST_OPSET}.",
    )


def _drop_attributes(node: ir.Node, old: OpSchema, new: OpSchema) -> None:
    for name in set(node.attributes) - set(old.attributes):
        value = node.attributes[name].value
        if value != _default(new, name) and not (name == "dilations" and set(value) == {1}):
            raise _no_equal(node, f"{name}={value}")
        del node.attributes[name]


def _default(schema: OpSchema, name: str) -> Any:
    from onnx import helper

    proto = schema.attributes[name].default_value
    value = helper.get_attribute_value(proto) if proto.name else None
    return value.decode() if isinstance(value, bytes) else value


def _reduce(node: ir.Node) -> None:
    """18: the axes became an input."""
    import onnx_ir as ir

    if len(node.inputs) > 1:
        axes = _constant(node, 1)
        node.resize_inputs(1)
        node.attributes["axes"] = ir.AttrInt64s("axes", [int(axis) for axis in axes])
        node.attributes.pop("noop_with_empty_axes", None)


def _split(node: ir.Node) -> None:
    """18: a number of equal parts, the last one smaller, in place of their sizes."""
    if node.attributes.pop("num_outputs", None) is None:
        return
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    size, parts = _shape(node, 0)[axis], len(node.outputs)
    part = -(-size // parts)
    sizes = [part] * (parts - 1) + [size - part * (parts - 1)]
    node.resize_inputs(2)
    node.replace_input_with(1, _initializer(node, "sizes", np.array(sizes, np.int64)))


def _pad(node: ir.Node) -> None:
    """18: padding may name its axes; 19: a mode that wraps around."""
    if (mode := node.attributes.get("mode")) is not None and mode.as_string() == "wrap":
        raise _no_equal(node, "mode=wrap")
    if len(node.inputs) < 4:
        return
    rank, pads, axes = len(_shape(node, 0)), _constant(node, 1), _constant(node, 3)
    spread = np.zeros((2, rank), np.int64)
    spread[:, axes] = pads.reshape(2, -1)
    node.replace_input_with(1, _initializer(node, "pads", spread.ravel()))
    node.resize_inputs(3)


def _resize(node: ir.Node) -> None:
    """19: one more way to place the pixels."""
    mode = node.attributes.get("coordinate_transformation_mode")
    if mode is not None and mode.as_string() == "half_pixel_symmetric":
        raise _no_equal(node, "coordinate_transformation_mode=half_pixel_symmetric")


def _grid_sample(node: ir.Node) -> None:
    """20: two modes were renamed."""
    import onnx_ir as ir

    mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "linear"
    node.attributes["mode"] = ir.AttrString("mode", {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode))


_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")

_RULES: dict[str, Callable[[ir.Node], None]] = {
    "GridSample": _grid_sample,
    "Pad": _pad,
    "Resize": _resize,
    "Split": _split,
    **{f"Reduce{kind}": _reduce for kind in _REDUCTIONS},
}


def _constant(node: ir.Node, position: int) -> NDArray[Any]:
    value = node.inputs[position] if position < len(node.inputs) else None
    if value is None or value.const_value is None:
        raise _no_equal(node, f"input {position} that is no constant")
    return value.const_value.numpy()


def _shape(node: ir.Node, position: int) -> list[int]:
    value = node.inputs[position]
    if value is None or value.shape is None or not value.shape.is_static():
        raise _no_equal(node, f"input {position} of unknown shape")
    return [dim for dim in value.shape if isinstance(dim, int)]


def _initializer(node: ir.Node, suffix: str, content: NDArray[Any]) -> ir.Value:
    import onnx_ir as ir

    name = f"{node.outputs[0].name}_{suffix}"
    value = ir.Value(name=name, const_value=ir.tensor(content, name=name))
    if node.graph is None:
        raise _no_equal(node, "no graph")
    node.graph.register_initializer(value)
    return value
