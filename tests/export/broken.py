"""Quantized graphs with something wrong, made of right ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from tests.export.quantizable import (
    SIZE_WH,
    WIDTH,
    Drawing,
    core_groups,
    images,
    measured_ranges,
    quantizable,
    ranges_of_kind,
)
from vidseg.export.graph import Graph, attribute_of
from vidseg.export.groups import find_groups
from vidseg.export.lint import DQ, Q, lint
from vidseg.export.lint_rules import Rule
from vidseg.export.qdq import MASTER, QuantizedForm, quantize


def master(kind: str = "relu", form: QuantizedForm = MASTER) -> onnx.ModelProto:
    graph = Graph(quantizable(kind))
    return onnx.load_from_string(quantize(graph, core_groups(graph), ranges_of_kind(kind), form))


def serialized(model: onnx.ModelProto) -> bytes:
    content: bytes = model.SerializeToString()
    return content


def rules_of(content: bytes) -> set[Rule]:
    return {finding.rule for finding in lint(content)}


def nodes_of(model: onnx.ModelProto, operator: str) -> list[Any]:
    return [node for node in model.graph.node if node.op_type == operator]


def activation_pair(model: onnx.ModelProto) -> tuple[Any, Any]:
    quantizer = nodes_of(model, Q)[0]
    return quantizer, next(node for node in nodes_of(model, DQ) if node.input[0] == quantizer.output[0])


def constant(model: onnx.ModelProto, name: str) -> NDArray[Any]:
    return onnx.numpy_helper.to_array(next(tensor for tensor in model.graph.initializer if tensor.name == name))


def store(model: onnx.ModelProto, name: str, values: NDArray[Any]) -> str:
    for tensor in list(model.graph.initializer):
        if tensor.name == name:
            model.graph.initializer.remove(tensor)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(values), name))
    return name


def with_parameters(scale: Any, zero_point: Any, kind: str = "relu") -> bytes:
    """The one activation's pair with other parameters; None keeps what is there."""
    model = master(kind)
    quantizer, _ = activation_pair(model)
    for name, values in zip(quantizer.input[1:], (scale, zero_point), strict=True):
        if values is not None:
            store(model, name, values)
    return serialized(model)


def foreign_domain() -> bytes:
    model = master()
    for node in (*nodes_of(model, Q), *nodes_of(model, DQ)):
        node.domain = "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return serialized(model)


def without_zero_points() -> bytes:
    model = master()
    for node in activation_pair(model):
        del node.input[2:]
    return serialized(model)


def with_computed(position: int) -> bytes:
    """Scale or zero point out of a node."""
    model = master()
    quantizer, dequantizer = activation_pair(model)
    operator, value = ("Abs", quantizer.input[1]) if position == 1 else ("Identity", quantizer.input[2])
    model.graph.node.insert(0, helper.make_node(operator, [value], ["computed"]))
    quantizer.input[position] = dequantizer.input[position] = "computed"
    return serialized(model)


def with_shared_scale() -> bytes:
    model = master("signed")
    first, second = nodes_of(model, Q)
    for node in (second, next(node for node in nodes_of(model, DQ) if node.input[0] == second.output[0])):
        node.input[1] = first.input[1]
    return serialized(model)


def weight_dequantizer(model: onnx.ModelProto) -> Any:
    names = {tensor.name for tensor in model.graph.initializer}
    return next(node for node in nodes_of(model, DQ) if node.input[0] in names)


def with_lowest_weight() -> bytes:
    model = master()
    name = weight_dequantizer(model).input[0]
    values = constant(model, name).copy()
    values[0, 0, 0, 0] = -128
    store(model, name, values)
    return serialized(model)


def with_weight_axis(axis: int) -> bytes:
    model = master()
    weight_dequantizer(model).attribute[0].i = axis
    return serialized(model)


def with_one_weight_scale(kind: str = "relu") -> bytes:
    model = master(kind)
    node = weight_dequantizer(model)
    store(model, node.input[1], np.array(0.01, np.float32))
    store(model, node.input[2], np.array(0, np.int8))
    del node.attribute[:]
    return serialized(model)


def with_float_weight(axis: int | None = 0, kind: str = "relu") -> bytes:
    """The weight is stored in float, and quantized in the graph: training with fake quantization exports it so."""
    model = master(kind)
    node = weight_dequantizer(model)
    scale = constant(model, node.input[1])
    spread = scale.reshape([-1 if number == attribute_of(node, "axis") else 1 for number in range(4)])
    values = constant(model, node.input[0]).astype(np.float32) * spread
    weight = store(model, "stored", values)
    count = 0 if axis is None else values.shape[axis]
    scale = np.full(count, 0.01, np.float32) if count else np.array(0.01, np.float32)
    parameters = [store(model, "s", scale), store(model, "z", np.zeros(scale.shape, np.int8))]
    attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
    node.input[:] = ["weight/quantized", *parameters]
    del node.attribute[:]
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    model.graph.node.insert(0, helper.make_node(Q, [weight, *parameters], ["weight/quantized"], **attributes))
    return serialized(model)


def with_one_factor(position: int) -> bytes:
    """The other is float: the activation at 0, the weight at 1."""
    model = master()
    conv = nodes_of(model, "Conv")[1]
    if position == 1:
        conv.input[0] = activation_pair(model)[0].input[0]
    else:
        conv.input[1] = store(model, "float", np.ones((WIDTH, WIDTH, 3, 3), np.float32))
    return Graph(serialized(model)).serialized()


def with_integers(operator: str, kinds: str, domain: str = "") -> bytes:
    """An operator of integers behind the picture, which nothing reads: `kinds` are its inputs.

    `x` is int8 planes, `f` float ones, `w` a weight of 3 channels, `s` a scale, `z` a zero point.
    """
    draw = Drawing()
    planes = draw.planes()
    scale, zero = draw.weight(np.array(0.1, np.float32)), draw.weight(np.array(0, np.int8))
    square = (3, 3, 1, 1) if "Conv" in operator else (32, 32)
    tensors = {"f": planes, "s": scale, "z": zero, "w": draw.weight(np.ones(square, np.int8))}
    tensors["x"] = draw.node(Q, [planes, scale, zero]) if "x" in kinds else ""
    model = onnx.load_from_string(draw.finished(draw.stem()))
    outputs = ["integers", "dynamic scale", "dynamic zero point"] if operator.startswith("Dynamic") else ["integers"]
    model.graph.node.append(helper.make_node(operator, [tensors[kind] for kind in kinds], outputs, domain=domain))
    if domain:
        model.opset_import.append(helper.make_opsetid(domain, 1))
    return serialized(model)


def with_integer_bias(kind: type[np.signedinteger[Any]] = np.int32) -> bytes:
    model = master()
    conv = nodes_of(model, "Conv")[1]
    zeros = store(model, "bias/zero", np.zeros(WIDTH, kind))
    values = store(model, "bias/int32", np.arange(WIDTH, dtype=kind))
    scale = store(model, "bias/scale", np.full(WIDTH, 0.001, np.float32))
    model.graph.node.insert(0, helper.make_node(DQ, [values, scale, zeros], ["bias/dequantized"], axis=0))
    conv.input[2] = "bias/dequantized"
    return serialized(model)


def with_pair_before(operator: str, kind: str, number: int = 0) -> bytes:
    """What a node reads first goes through a pair of its own."""
    model = master(kind)
    node = nodes_of(model, operator)[number]
    place = list(model.graph.node).index(node)
    parameters = [
        store(model, "more/scale", np.array(0.1, np.float32)),
        store(model, "more/zero_point", np.array(0, np.int8)),
    ]
    pair = [
        helper.make_node(Q, [node.input[0], *parameters], ["more/quantized"]),
        helper.make_node(DQ, ["more/quantized", *parameters], ["more/dequantized"]),
    ]
    node.input[0] = "more/dequantized"
    for entry in reversed(pair):
        model.graph.node.insert(place, entry)
    return serialized(model)


def quantized_whole(draw: Drawing, data: str) -> bytes:
    graph = Graph(draw.finished(data))
    groups = core_groups(graph)
    return quantize(graph, groups, measured_ranges(graph, groups, images()))


def behind_pad() -> bytes:
    draw = Drawing()
    pads = draw.weight(np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
    padded = draw.node("Pad", [draw.stem(), pads], mode="reflect")
    return quantized_whole(draw, draw.conv(padded, (WIDTH, WIDTH, 3, 3), pads=[0] * 4))


def with_normalization() -> bytes:
    draw = Drawing()
    statistics = [draw.weight(np.ones(WIDTH, np.float32)) for _ in range(4)]
    return quantized_whole(
        draw, draw.node("BatchNormalization", [draw.conv(draw.stem(), (WIDTH, WIDTH, 3, 3)), *statistics])
    )


def attention() -> bytes:
    """What the softmax in the middle reads is quantized."""
    draw = Drawing()
    left, right = (draw.conv(draw.stem(), (WIDTH, WIDTH, 1, 1)) for _ in range(2))
    shapes = [draw.weight(np.array(shape, np.int64)) for shape in ([1, WIDTH, -1], [1, WIDTH, *SIZE_WH[::-1]])]
    rows = draw.node("Reshape", [left, shapes[0]])
    columns = draw.node("Transpose", [draw.node("Reshape", [right, shapes[0]])], perm=[0, 2, 1])
    likeness = draw.node("MatMul", [rows, columns])
    mixed = draw.node("MatMul", [draw.node("Softmax", [_pair(draw, likeness)], axis=-1), rows])
    return draw.finished(draw.node("Reshape", [mixed, shapes[1]]))


def transposed(shape: tuple[int, int], group: int = 1) -> bytes:
    """A quantized ConvTranspose with a weight of these channels."""
    draw = Drawing()
    data = draw.node("ConvTranspose", [draw.stem(), draw.random(*shape, 2, 2)], strides=[2, 2], group=group)
    graph = Graph(draw.finished(draw.conv(data, (WIDTH, shape[1] * group, 3, 3))))
    groups = [found for found in find_groups(graph) if found.operator == "ConvTranspose"]
    return quantize(graph, groups, measured_ranges(graph, groups, images()))


def moved(between: Callable[[Drawing, str], str]) -> bytes:
    """A quantized convolution that reads what was dequantized, and then went through other nodes."""
    draw = Drawing()
    data = between(draw, _pair(draw, draw.stem()))
    values = np.random.default_rng(1).integers(-127, 128, (WIDTH, WIDTH, 3, 3), dtype=np.int8)
    parameters = [draw.weight(np.full(WIDTH, 0.001, np.float32)), draw.weight(np.zeros(WIDTH, np.int8))]
    weight = draw.node(DQ, [draw.weight(values), *parameters], axis=0)
    return draw.finished(draw.node("Relu", [draw.node("Conv", [data, weight], pads=[1] * 4)]))


def _pair(draw: Drawing, tensor: str) -> str:
    parameters = [draw.weight(np.array(0.1, np.float32)), draw.weight(np.array(0, np.int8))]
    return draw.node(DQ, [draw.node(Q, [tensor, *parameters]), *parameters])


def with_all_groups(kind: str) -> bytes:
    graph = Graph(quantizable(kind))
    return quantize(graph, find_groups(graph), ranges_of_kind(kind))
