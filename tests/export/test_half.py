"""A network in float16 that overflows, or computes its classes in it, must not reach a device."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.export.quantizable import KINDS, core_groups, exactly, images, quantizable, ranges_of_kind
from vidseg.export.graph import Graph
from vidseg.export.half import MAX_HALF, in_half
from vidseg.export.lint import lint
from vidseg.export.qdq import quantize
from vidseg.runtime.decoding import CLASS_MAP
from vidseg.runtime.errors import ModelError


def master(kind: str) -> bytes:
    graph = Graph(quantizable(kind))
    return quantize(graph, core_groups(graph), ranges_of_kind(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_computes_in_float16_and_gives_the_classes_that_it_gave(kind: str) -> None:
    content = in_half(master(kind))
    graph = Graph(content)
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    products = [node for node in graph.nodes if node.op_type in {"Conv", "ConvTranspose", "Gemm", "MatMul"}]
    assert products
    assert all(graph.element_type(node.output[0]) == onnx.TensorProto.FLOAT16 for node in products)
    assert [finding for finding in lint(content) if finding.rule.level == "error"] == []
    before, after = Graph(master(kind)).model.graph, graph.model.graph
    assert (before.input, before.output) == (after.input, after.output)
    same = exactly(content, CLASS_MAP, images()) == exactly(master(kind), CLASS_MAP, images())
    assert same.mean() > 0.99


def test_a_weight_beyond_float16_is_refused_by_name() -> None:
    model = onnx.load_from_string(quantizable("relu"))
    name = next(node.input[1] for node in model.graph.node if node.op_type == "Conv")
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    values = onnx.numpy_helper.to_array(weight).copy()
    values[0, 0, 0, 0] = 2 * MAX_HALF
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    with pytest.raises(ModelError, match=rf"{name}.*float16") as caught:
        in_half(model.SerializeToString())
    assert f"{np.float32(2 * MAX_HALF):g}" in str(caught.value)
