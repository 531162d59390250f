"""An output too many costs time in every frame; a node too few, and TensorRT refuses the graph."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.runtime.engines.tensorrt.graphs import SIZE_WH, graph
from vidseg.runtime.bundle import open_bundle
from vidseg.runtime.engines.onnxruntime import import_onnxruntime
from vidseg.runtime.engines.tensorrt.onnx_bytes import has_free_batch, only_outputs, output_names
from vidseg.runtime.pipeline.opening import demo_bundle_path


def test_what_is_left_is_a_valid_graph_with_the_same_results() -> None:
    model = graph(outputs=2)
    image = np.random.default_rng(0).integers(0, 256, (1, *SIZE_WH[::-1], 3), dtype=np.uint8)
    runtime = import_onnxruntime()
    whole = runtime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(["class_map"], {"image": image})
    less = only_outputs(model, {"class_map"})
    onnx.checker.check_model(onnx.load_from_string(less), full_check=True)
    assert np.array_equal(
        runtime.InferenceSession(less, providers=["CPUExecutionProvider"]).run(None, {"image": image}), whole
    )


@pytest.mark.parametrize("wanted", [{"class_map"}, {"class_map", "confidence"}, {"scores"}])
def test_the_demo_model_keeps_what_its_outputs_need(wanted: set[str]) -> None:
    model = open_bundle(demo_bundle_path()).members["model.onnx"]
    assert set(output_names(model)) == {"class_map", "confidence", "scores"}
    less = onnx.load_from_string(only_outputs(model, wanted))
    onnx.checker.check_model(less, full_check=True)
    assert {value.name for value in less.graph.output} == wanted
    read = {name for node in less.graph.node for name in node.input} | wanted
    assert all(read.intersection(node.output) for node in less.graph.node)  # none is dead


def test_a_graph_with_all_of_its_outputs_is_the_same_graph() -> None:
    model = graph(outputs=2)
    assert only_outputs(model, {"class_map", "confidence"}) == model


@pytest.mark.parametrize("batch", [None, 1, "batch"])
def test_a_batch_is_free_where_its_axis_has_a_name(batch: int | str | None) -> None:
    model = onnx.load_from_string(graph())
    axis = model.graph.input[0].type.tensor_type.shape.dim[0]
    axis.Clear()
    if isinstance(batch, str):
        axis.dim_param = batch
    elif batch is not None:
        axis.dim_value = batch
    assert has_free_batch(model.SerializeToString()) is (batch == "batch")


def test_what_only_an_inner_graph_reads_is_kept() -> None:
    def branch(name: str) -> onnx.GraphProto:
        node = helper.make_node("Neg", ["outer"], [name])
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])])

    nodes = [
        helper.make_node("Abs", ["x"], ["outer"]),
        helper.make_node("Abs", ["x"], ["unused"]),
        helper.make_node("If", ["c"], ["class_map"], then_branch=branch("a"), else_branch=branch("b")),
    ]
    taken = [helper.make_tensor_value_info(name, kind, [1]) for name, kind in (("x", 1), ("c", 9))]
    given_ = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("class_map", "unused")]
    model = helper.make_model(helper.make_graph(nodes, "g", taken, given_)).SerializeToString()
    less = onnx.load_from_string(only_outputs(model, {"class_map"}))
    assert [node.op_type for node in less.graph.node] == ["Abs", "If"]


@given(st.binary(max_size=200))
def test_what_is_no_graph_is_a_value_error(content: bytes) -> None:
    with suppress(ValueError):
        only_outputs(content, {"class_map"})


@given(position=st.integers(0), byte=st.integers(0, 255))
def test_a_damaged_graph_is_a_value_error_or_another_graph(position: int, byte: int) -> None:
    model = bytearray(graph(outputs=2))
    model[position % len(model)] = byte
    with suppress(ValueError):
        only_outputs(bytes(model), {"class_map"})
