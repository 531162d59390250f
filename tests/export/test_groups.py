"""A group with a wrong input, skip branch or size gets a wrong range, or is left out of the sum of the work."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.export.quantizable import KINDS, SIZE_WH, WIDTH, Drawing, quantizable
from vidseg.export.graph import Graph
from vidseg.export.groups import FusionGroup, find_groups, total_macs
from vidseg.export.qdq import MASTER, Ranges, quantize

PIXELS = SIZE_WH[0] * SIZE_WH[1]


def graph_of(
    operator: str, inputs: dict[str, list[int]], weights: dict[str, list[int]], order: list[str], **attributes: Any
) -> Graph:
    """One node."""
    node = helper.make_node(operator, order, ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return Graph(model.SerializeToString())


def core(kind: str) -> list[FusionGroup]:
    """All groups but those of the first convolution and of the classifier."""
    found = find_groups(Graph(quantizable(kind)))
    assert found[0].channels_in == 3
    assert found[-1].name == "logits"
    return list(found[1:-1])


@pytest.mark.parametrize(
    ("kind", "operator", "macs", "positions"),
    [
        ("relu", "Conv", WIDTH * WIDTH * 9 * PIXELS, PIXELS),
        ("depthwise", "Conv", WIDTH * 9 * PIXELS, PIXELS),
        ("grouped", "Conv", WIDTH * 4 * 9 * PIXELS, PIXELS),
        ("transposed", "ConvTranspose", WIDTH * WIDTH * 4 * PIXELS, 4 * PIXELS),
        ("grouped transposed", "ConvTranspose", WIDTH * 4 * 4 * PIXELS, 4 * PIXELS),
        ("matmul", "MatMul", WIDTH * WIDTH * PIXELS, PIXELS),
        ("matmul left", "MatMul", WIDTH * WIDTH * PIXELS, PIXELS),
        ("gemm", "Gemm", WIDTH * WIDTH, 1),
    ],
)
def test_the_work_of_a_group_is_that_of_its_operator(kind: str, operator: str, macs: int, positions: int) -> None:
    group = core(kind)[0]
    assert (group.operator, group.macs, group.positions) == (operator, macs, positions)
    assert (group.channels_in, group.channels_out) == (WIDTH, WIDTH)
    assert group.depthwise == (kind == "depthwise")
    assert not group.is_narrow
    assert group.weight is not None
    assert len(group.inputs) == 1


@pytest.mark.parametrize(
    ("shapes", "weights", "attributes", "channels", "macs"),
    [
        ([5, 6], [6, 7], {}, (6, 7), 5 * 6 * 7),
        ([5, 6], [7, 6], {"transB": 1}, (6, 7), 5 * 6 * 7),
    ],
)
def test_a_gemm_counts_its_weight_either_way_round(
    shapes: list[int], weights: list[int], attributes: dict[str, int], channels: tuple[int, int], macs: int
) -> None:
    (group,) = find_groups(graph_of("Gemm", {"x": shapes}, {"w": weights}, ["x", "w"], **attributes))
    assert (group.channels_in, group.channels_out) == channels
    assert (group.macs, group.positions) == (macs, 5)


def test_a_product_with_the_weight_on_the_left_reads_the_other_side() -> None:
    (group,) = find_groups(graph_of("MatMul", {"x": [1, 6, 9]}, {"w": [5, 6]}, ["w", "x"]))
    assert (group.inputs, group.weight) == (("x",), "w")
    assert (group.channels_in, group.channels_out, group.positions, group.macs) == (6, 5, 9, 5 * 6 * 9)


def test_a_product_of_two_activations_reads_both() -> None:
    (group,) = find_groups(graph_of("MatMul", {"x": [1, 4, 6], "y2": [1, 6, 5]}, {}, ["x", "y2"]))
    assert (group.inputs, group.weight) == (("x", "y2"), None)
    assert group.macs == 4 * 6 * 5


@pytest.mark.parametrize(
    ("operator", "inputs", "weights", "order"),
    [
        ("MatMul", {"x": [1, 8, 16]}, {"w": [16]}, ["x", "w"]),
        ("MatMul", {"x": [1, 8, 16]}, {"w": [8]}, ["w", "x"]),
        ("MatMul", {"x": [16]}, {"w": [8, 16]}, ["w", "x"]),
        ("MatMul", {"x": [16]}, {"w": [16, 8]}, ["x", "w"]),
        ("MatMul", {"x": [3]}, {"v": [8, 16], "w": [16, 8]}, ["v", "w"]),
        ("Gemm", {"x": [16, 4]}, {"w": [8, 16]}, ["w", "x"]),
        ("Conv", {"x": [16, 16, 3, 3]}, {"w": [1, 16, 4, 4]}, ["w", "x"]),
    ],
    ids=["vector right", "vector left", "of a vector", "vector times", "constant", "Gemm left", "Conv of a constant"],
)
def test_a_product_that_no_engine_quantizes_is_no_group(
    operator: str, inputs: dict[str, list[int]], weights: dict[str, list[int]], order: list[str]
) -> None:
    """Vectors have no channels; and a weight where an activation belongs would get a pair that nobody writes."""
    assert find_groups(graph_of(operator, inputs, weights, order)) == ()


def test_a_size_that_is_not_known_makes_no_group() -> None:
    free = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, 16])]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "free",
        free,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.ones((16, 8), np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    assert find_groups(Graph(model.SerializeToString())) == ()


def test_the_branch_that_an_addition_brings_is_the_skip_of_the_convolution_before_it() -> None:
    graph = Graph(quantizable("residual"))
    branch, last = core("residual")
    addition = graph.only_reader(last.name)
    assert addition is not None
    assert addition.op_type == "Add"
    assert last.skip in addition.input
    assert last.skip == branch.inputs[0]
    assert branch.skip is None


def test_of_two_convolutions_that_are_added_the_last_one_takes_the_other_as_its_skip() -> None:
    first, second = core("shared input")
    assert (first.skip, second.skip) == (None, first.name)
    assert first.inputs == second.inputs


@pytest.mark.parametrize("case", ["other shape", "weight", "itself", "an output beside"])
def test_an_addition_that_is_no_skip_branch_is_none(case: str) -> None:
    draw = Drawing()
    stem = draw.stem()
    result = draw.conv(stem, (WIDTH, WIDTH, 3, 3))
    other = {
        "other shape": lambda: draw.node("GlobalAveragePool", [stem]),
        "weight": lambda: draw.random(WIDTH, 1, 1),
        "itself": lambda: result,
        "an output beside": lambda: stem,
    }[case]()
    added = draw.node("Add", [result, other])
    if case == "an output beside":
        added = draw.node("Mul", [added, result])
    assert find_groups(Graph(draw.finished(added)))[1].skip is None


@pytest.mark.parametrize(
    ("kind", "reader"), [("relu", "Relu"), ("clip", "Clip"), ("prelu", None), ("residual", None), ("signed", None)]
)
def test_a_group_ends_behind_what_engines_fuse_into_8_bits(kind: str, reader: str | None) -> None:
    graph = Graph(quantizable(kind))
    last = core(kind)[-1]
    producer = graph.producer(last.result)
    assert producer is not None
    assert producer.op_type == (reader or "Conv")
    assert (last.result == last.name) == (reader is None)


@pytest.mark.parametrize("kind", KINDS)
def test_groups_are_named_once_and_in_the_order_of_the_graph(kind: str) -> None:
    graph = Graph(quantizable(kind))
    groups = find_groups(graph)
    names = [group.name for group in groups]
    assert len(set(names)) == len(names)
    order = [node.output[0] for node in graph.nodes]
    assert names == sorted(names, key=order.index)
    assert total_macs(groups) == sum(group.macs for group in groups)
    assert find_groups(Graph(graph.serialized())) == groups


def test_narrow_is_what_fills_no_vector() -> None:
    groups = find_groups(Graph(quantizable("relu")))
    assert [group.is_narrow for group in groups] == [True, False, True]
    assert not core("depthwise")[0].is_narrow


def test_one_weight_that_two_nodes_read_is_a_group_each() -> None:
    draw = Drawing()
    stem = draw.stem()
    weight = draw.random(WIDTH, WIDTH, 1, 1)
    both = [draw.node("Conv", [data, weight]) for data in (stem, draw.node("MaxPool", [stem], kernel_shape=[1, 1]))]
    graph = Graph(draw.finished(draw.node("Mul", both)))
    groups = find_groups(graph)[1:-1]
    assert [group.weight for group in groups] == [weight, weight]
    ranges = Ranges({tensor: 1.0 for group in groups for tensor in group.inputs})
    onnx.checker.check_model(onnx.load_from_string(quantize(graph, groups, ranges, MASTER)), full_check=True)
