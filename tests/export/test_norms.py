"""A normalization that is left beside quantized convolutions is a float pass over the whole activation."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from vidseg.export.norms import without_norms

SIZE = 6


def _model(
    branches: tuple[int, ...],
    *,
    bias: bool,
    also_read: bool = False,
    pool: bool = False,
    axis: int = 1,
    shared: bool = False,
) -> onnx.ModelProto:
    rng = np.random.default_rng(1)
    weights: list[Any] = []

    def weight(name: str, values: Any) -> str:
        weights.append(onnx.numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name

    nodes = []
    for number, channels in enumerate(branches):
        is_first = number == 0 or not shared
        inputs = ["x", weight(f"w{number}", rng.normal(size=(channels, 3, 3, 3))) if is_first else "w0"]
        inputs += [weight(f"b{number}", rng.normal(size=channels))] if bias else []
        nodes.append(helper.make_node("Conv", inputs, [f"c{number}"], pads=[1] * 4))
    names = [f"c{number}" for number in range(len(branches))]
    total = sum(branches)
    if pool:
        nodes.append(helper.make_node("MaxPool", ["x"], ["p"], kernel_shape=[1, 1]))
        names.append("p")
        total += 3
    nodes.append(helper.make_node("Concat", names, ["cat"], axis=axis))
    total = total if axis in {1, -3} else branches[0]
    parameters = [weight(name, rng.normal(size=total)) for name in ("scale", "shift", "mean")]
    parameters.append(weight("variance", rng.uniform(0.1, 2, total)))
    nodes.append(helper.make_node("BatchNormalization", ["cat", *parameters], ["n"], epsilon=1e-3))
    nodes.append(helper.make_node("Relu", ["n"], ["y"]))
    if also_read:
        nodes.append(helper.make_node("Neg", ["c0"], ["z"]))
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, total, None, SIZE])]
    outputs += [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)] if also_read else []
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, SIZE, SIZE])
    graph = helper.make_graph(nodes, "g", [image], outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _run(model: onnx.ModelProto) -> Any:
    image = np.random.default_rng(2).normal(size=(1, 3, SIZE, SIZE)).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": image})[0]


@pytest.mark.parametrize("branches", [(4,), (4, 6), (2, 3, 5)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("axis", [1, -3])
def test_a_norm_behind_convolutions_side_by_side_is_folded(branches: tuple[int, ...], bias: bool, axis: int) -> None:
    model = _model(branches, bias=bias, axis=axis)
    folded = without_norms(model)
    assert "BatchNormalization" not in {node.op_type for node in folded.graph.node}
    assert np.allclose(_run(folded), _run(model), atol=1e-4)


def test_a_norm_of_convolutions_one_above_the_other_stays() -> None:
    """Each of its channels has rows of both."""
    for axis in (2, -2):
        model = _model((4, 4), bias=True, axis=axis)
        onnx.checker.check_model(model, full_check=True)
        assert without_norms(model) is model


@pytest.mark.parametrize("case", [{"also_read": True}, {"pool": True}, {"shared": True}])
def test_a_norm_of_anything_else_stays(case: dict[str, bool]) -> None:
    model = _model((4, 4), bias=True, **case)
    assert without_norms(model) is model
