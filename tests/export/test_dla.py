"""A graph and ranges that do not say all: the device computes something else than what was judged."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from tests.export.quantizable import KINDS, SCORES, core_groups, exactly, images, quantizable, ranges_of_kind
from vidseg.export.dla import DLA, groups_for_dla, ranges_document
from vidseg.export.graph import Graph
from vidseg.export.groups import OPERATORS
from vidseg.export.observe import with_outputs
from vidseg.export.qdq import Ranges, channel_axis, quantize, quantize_weight, with_bias_corrections


def corrected_ranges(kind: str) -> Ranges:
    """With corrections that cannot be overlooked."""
    found, graph = ranges_of_kind(kind), Graph(quantizable(kind))
    corrections = {
        group.name: np.linspace(-0.3, 0.3, group.channels_out, dtype=np.float32) for group in core_groups(graph)
    }
    return Ranges(found.amax, found.nonnegative, corrections)


def as_tensorrt_reads_it(content: bytes, document: dict[str, Any]) -> bytes:
    """Weights by channel, activations by their ranges; layers in INT8 where all around them has a range.

    What NVIDIA's developer guide says of networks without Q/DQ: what has no range is not kept in 8 bits, and a layer
    that reads or gives such a tensor is computed in float.
    """
    graph, ranges = Graph(content), document["ranges"]
    nodes: list[Any] = []
    for node in graph.nodes:
        in_float = node.output[0] in document["float"] or node.output[0] not in ranges or node.input[0] not in ranges
        if node.op_type in OPERATORS and not in_float:
            weight = graph.weight(node.input[1])
            axis = channel_axis(node, weight.ndim, node.input[1])
            values, scale = quantize_weight(weight, axis)
            shape = [-1 if number == axis else 1 for number in range(weight.ndim)]
            spread = scale.reshape(shape) if axis is not None else scale
            node.input[1] = graph.set_weight(f"{node.output[0]} weight", (values * spread).astype(np.float32))
        nodes.append(node)
        for name in set(node.output) & set(ranges):
            parameters = [
                graph.set_weight(f"{name} scale", np.array(ranges[name] / 127, np.float32)),
                graph.set_weight(f"{name} zero", np.array(0, np.int8)),
            ]
            nodes.append(helper.make_node("QuantizeLinear", [name, *parameters], [f"{name} q"]))
            nodes.append(helper.make_node("DequantizeLinear", [f"{name} q", *parameters], [f"{name} dq"]))
    for node in nodes:
        if node.op_type != "QuantizeLinear":
            node.input[:] = [f"{name} dq" if name in ranges else name for name in node.input]
    graph.replace_nodes(nodes)
    return graph.serialized()


def scores_of(content: bytes) -> NDArray[Any]:
    return exactly(with_outputs(Graph(content), [SCORES]), SCORES, images())


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_files_say_is_what_the_gate_judged(kind: str) -> None:
    graph, ranges = Graph(quantizable(kind)), corrected_ranges(kind)
    groups = groups_for_dla(graph, core_groups(graph))
    judged = quantize(graph, groups, ranges, DLA)
    document = json.loads(ranges_document(graph, groups, ranges))
    written = with_bias_corrections(graph, groups, ranges)
    onnx.checker.check_model(onnx.load_from_string(written), full_check=True)
    read = as_tensorrt_reads_it(written, document)
    np.testing.assert_allclose(scores_of(read), scores_of(judged), atol=1e-4)
    if groups:
        assert np.abs(scores_of(read) - scores_of(written)).max() > 1e-3  # it is quantized indeed
    else:
        assert document["ranges"] == {}


def test_every_activation_of_a_residual_block_has_a_range_and_what_stays_float_is_named() -> None:
    graph = Graph(quantizable("residual"))
    groups = core_groups(graph)
    document = json.loads(ranges_document(graph, groups, ranges_of_kind("residual")))
    first, second = groups
    (addition,) = [node for node in graph.nodes if node.op_type == "Add"]
    assert {*first.inputs, first.name, first.result, second.name, second.skip} == set(document["ranges"])
    assert document["ranges"][first.name] == document["ranges"][first.result]  # before its Relu and behind it
    assert addition.output[0] not in document["ranges"]  # the classifier is float, and reads it
    stem, classifier = document["float"]
    assert (stem, classifier) == (graph.nodes[4].output[0], SCORES)


def test_the_same_ranges_give_the_same_bytes() -> None:
    graph, ranges = Graph(quantizable("residual")), ranges_of_kind("residual")
    groups = core_groups(graph)
    first = ranges_document(graph, groups, ranges)
    shuffled = Ranges(dict(reversed(list(ranges.amax.items()))), ranges.nonnegative)
    assert ranges_document(graph, groups[::-1], shuffled) == first
