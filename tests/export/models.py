"""Small segmentation models of every head and layout, as a training framework would write them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

FLOAT = TensorProto.FLOAT


@dataclass(frozen=True)
class ModelSpec:
    """What `write_model` builds: two padded 3x3 convolutions and a head.

    `dynamic` leaves height and width open; `weights_as_inputs` lists the weights as inputs, as old exporters do.
    `upsampled` ends the model with a Resize back to the input's size, of that coordinate transformation.
    """

    size_wh: tuple[int, int] = (64, 48)
    layout: str = "NCHW"
    head: str = "logits"
    head_layout: str = "NCHW"
    stride: int = 1
    classes: int = 4
    dynamic: bool = False
    weights_as_inputs: bool = False
    opset: int = 13
    upsampled: str = ""
    second_output: bool = False


def write_model(path: Path, spec: ModelSpec | None = None) -> Path:
    """Write a model with random but fixed weights."""
    onnx.save(build_model(spec or ModelSpec()), str(path))
    return path


def build_model(spec: ModelSpec) -> onnx.ModelProto:
    channels = 1 if spec.head == "sigmoid" else spec.classes
    rng = np.random.default_rng(5)
    weights = [
        _tensor("w1", rng.normal(0, 0.4, (8, 3, 3, 3))),
        _tensor("b1", rng.normal(0, 0.2, 8)),
        _tensor("w2", rng.normal(0, 0.4, (channels, 8, 3, 3))),
    ]
    if spec.upsampled:
        sizes = np.array([1, channels, spec.size_wh[1], spec.size_wh[0]], np.int64)
        weights.append(onnx.numpy_helper.from_array(sizes, "sizes"))
    nodes: list[Any] = []
    feature = "input"
    if spec.layout == "NHWC":
        nodes.append(helper.make_node("Transpose", ["input"], ["planes"], perm=[0, 3, 1, 2]))
        feature = "planes"
    nodes += [
        helper.make_node("Conv", [feature, "w1", "b1"], ["a"], pads=[1] * 4, strides=[spec.stride] * 2),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], pads=[1] * 4),
    ]
    output = _add_head(nodes, spec)
    outputs = [helper.make_tensor_value_info(output, FLOAT, [None] * 4)]
    if spec.second_output:
        outputs.append(helper.make_tensor_value_info("b", FLOAT, [None] * 4))
    width, height = spec.size_wh
    rows, columns = ("rows", "columns") if spec.dynamic else (height, width)
    batch = "batch" if spec.dynamic else 1
    shape = [batch, 3, rows, columns] if spec.layout == "NCHW" else [batch, rows, columns, 3]
    inputs = [helper.make_tensor_value_info("input", FLOAT, shape)]
    if spec.weights_as_inputs:
        inputs += [helper.make_tensor_value_info(tensor.name, FLOAT, list(tensor.dims)) for tensor in weights]
    graph = helper.make_graph(nodes, "model", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", spec.opset)], ir_version=8)


def _add_head(nodes: list[Any], spec: ModelSpec) -> str:
    output = "c"
    if spec.upsampled:
        nodes.append(
            helper.make_node(
                "Resize", ["c", "", "", "sizes"], ["large"], mode="linear",
                coordinate_transformation_mode=spec.upsampled,
            )
        )  # fmt: skip
        output = "large"
    if spec.head == "softmax":
        nodes.append(helper.make_node("Softmax", [output], ["probability"], axis=1))
        output = "probability"
    if spec.head in {"sigmoid", "sigmoid by class"}:
        nodes.append(helper.make_node("Sigmoid", [output], ["probability"]))
        output = "probability"
    if spec.head_layout == "NHWC":
        nodes.append(helper.make_node("Transpose", [output], ["last"], perm=[0, 2, 3, 1]))
        output = "last"
    return output


def _tensor(name: str, values: np.ndarray[Any, Any]) -> Any:
    return onnx.numpy_helper.from_array(values.astype(np.float32), name)


def write_wide_model(path: Path, size_wh: tuple[int, int], classes: int = 4, stride: int = 2) -> Path:
    """Write a model that can be quantized: 16 to 32 channels, depthwise, a skip, coarse logits, upsampled."""
    rng = np.random.default_rng(3)
    weights: list[Any] = []

    def weight(name: str, *shape: int) -> str:
        fan_in = float(np.prod(shape[1:])) if len(shape) > 1 else 10.0
        values = rng.normal(0, 1 / np.sqrt(fan_in), shape).astype(np.float32)
        weights.append(onnx.numpy_helper.from_array(values, name))
        return name

    def conv(data: str, out: str, channels: tuple[int, int], stride: int = 1, group: int = 1) -> Any:
        names = [weight(f"{out}_w", channels[1], channels[0] // group, 3, 3), weight(f"{out}_b", channels[1])]
        return helper.make_node("Conv", [data, *names], [out], pads=[1] * 4, strides=[stride] * 2, group=group)

    nodes = [
        conv("input", "c0", (3, 16), stride),
        helper.make_node("Relu", ["c0"], ["r0"]),
        conv("r0", "c1", (16, 32)),
        helper.make_node("PRelu", ["c1", weight("slope", 32, 1, 1)], ["r1"]),
        conv("r1", "c2", (32, 32), group=32),
        helper.make_node("Relu", ["c2"], ["r2"]),
        conv("r2", "c3", (32, 32)),
        helper.make_node("Add", ["c3", "r1"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["r3"]),
        conv("r3", "c4", (32, 16)),
        conv("c4", "coarse", (16, classes)),
        helper.make_node("Resize", ["coarse", "", "", "sizes"], ["logits"], mode="linear"),
    ]
    weights.append(onnx.numpy_helper.from_array(np.array([1, classes, size_wh[1], size_wh[0]], np.int64), "sizes"))
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, size_wh[1], size_wh[0]])
        for name, channels in (("input", 3), ("logits", classes))
    ]
    graph = helper.make_graph(nodes, "model", values[:1], values[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path
