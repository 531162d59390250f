"""One quantized graph, written as each engine computes it fast and right."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any

import numpy as np

from vidseg.export.fuse import IMAGE_PREFIX
from vidseg.export.graph import Graph
from vidseg.export.qdq import QuantizedForm

CPU_WEIGHT_QMAX = 63
"""Largest magnitude of a weight that every processor computes exactly with: x86 before VNNI adds two products of 255
and a weight in 16 bits, which hold no more than 2 * 255 * 64. Measured on ESPNetv2 s1 with OpenVINO and AVX2: 0.42 mIoU
with weights up to 127, 0.495 up to 63; in exact arithmetic both give 0.49."""

OPENVINO = QuantizedForm(CPU_WEIGHT_QMAX, unsigned=True)
ONNXRUNTIME = QuantizedForm(CPU_WEIGHT_QMAX, unsigned=True, results=True)
"""Its kernels for 8-bit convolutions give 8 bits only, and are fast with unsigned activations. StreetNet 360x480, two
cores with AVX2: master 40 ms, unsigned 33, with quantized results 23, float 27."""

_LOWEST = float(np.finfo(np.float32).min)


def for_openvino(content: bytes) -> bytes:
    """Keep OpenVINO from moving the subtraction of the mean behind a padded average pooling.

    It takes 8-bit input with a mean and a scale for a quantized activation, and moves both behind what follows; where
    that pads, the border is wrong (seen in OpenVINO 2026.4 on ESPNetv2: 0.5 % of the logits' power). A maximum with the
    lowest number changes no value and is not moved.
    """
    import onnx

    graph = Graph(content)
    ends = [node for node in graph.nodes if node.name.startswith(IMAGE_PREFIX) and node.op_type in {"Sub", "Mul"}]
    if not ends:
        return content
    end = ends[-1]
    tensor = end.output[0]
    lowest = graph.set_weight(f"{tensor}/lowest", np.array(_LOWEST, np.float32))
    end.output[0] = f"{tensor}/scaled"
    nodes = []
    for node in graph.nodes:
        nodes.append(node)
        if node.output[0] == end.output[0]:
            nodes.append(onnx.helper.make_node("Max", [end.output[0], lowest], [tensor], name=f"{tensor}/kept"))
    graph.replace_nodes(nodes)
    return graph.serialized()


def for_onnxruntime(content: bytes) -> bytes:
    """Write each GELU as one operator of ONNX Runtime's own, before it takes them apart.

    It moves DequantizeLinear behind what only moves values, once for each reader; the parts of a GELU then read
    different tensors and are no longer recognized (seen in 1.31: a transformer's INT8 graph 5 % slower). GELU is
    x (1 + erf(x / sqrt 2)) / 2: Hendrycks and Gimpel, Gaussian error linear units, 2016.
    """
    import onnx

    graph = Graph(content)
    found = {node.output[0]: parts for node in graph.nodes if node.op_type == "Erf" and (parts := _gelu(graph, node))}
    if not found:
        return content
    ends = {output: tensor for tensor, output in found.values()}
    nodes = [
        onnx.helper.make_node("Gelu", [ends[node.output[0]]], node.output, name=node.output[0], domain="com.microsoft")
        if node.output[0] in ends
        else node
        for node in graph.nodes
    ]
    graph.replace_nodes(nodes)
    if not any(entry.domain == "com.microsoft" for entry in graph.model.opset_import):
        graph.model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return graph.serialized()


def _gelu(graph: Graph, erf: Any) -> tuple[str, str] | None:
    """What a GELU around an Erf reads and gives; None where it is none, or parts of it are read elsewhere."""
    inner = graph.producer(erf.input[0])
    if inner is None or not _is_by(graph, inner, {"Div": sqrt(2), "Mul": sqrt(0.5)}):
        return None
    tensor = str(next(name for name in inner.input if not graph.is_weight(name)))
    plus = graph.only_reader(erf.output[0])
    if plus is None or not _is_by(graph, plus, {"Add": 1.0}):
        return None
    first = graph.only_reader(plus.output[0])
    if first is None or first.op_type != "Mul":
        return None
    other = first.input[1] if first.input[0] == plus.output[0] else first.input[0]
    if other == tensor:  # x (1 + erf), then the half
        last = graph.only_reader(first.output[0])
        return (tensor, last.output[0]) if last is not None and _is_by(graph, last, {"Mul": 0.5}) else None
    half = graph.producer(other)
    if half is None or not _is_by(graph, half, {"Mul": 0.5}) or tensor not in half.input:
        return None
    return tensor, first.output[0]


def _is_by(graph: Graph, node: Any, constants: Mapping[str, float]) -> bool:
    """True for an operator with its constant, on either side where that is the same."""
    wanted = constants.get(node.op_type)
    names = [name for name in node.input if graph.is_weight(name)]
    if wanted is None or len(names) != 1 or (node.op_type == "Div" and names[0] != node.input[1]):
        return False
    value = graph.weight(names[0])
    return value.size == 1 and abs(float(value.ravel()[0]) - wanted) < 1e-4
