"""One quantized graph, written as each engine computes it fast and right."""

from __future__ import annotations

import numpy as np

from vidseg.export.fuse import IMAGE_PREFIX
from vidseg.export.graph import Graph
from vidseg.export.quantize import QuantizedForm

CPU_WEIGHT_LEVELS = 63
"""Largest magnitude of a weight that every processor computes exactly with: x86 before VNNI adds two products of 255
and a weight in 16 bits, which hold no more than 2 * 255 * 64. Measured on ESPNetv2 s1 with OpenVINO and AVX2: 0.42 mIoU
with weights up to 127, 0.495 up to 63; in exact arithmetic both give 0.49."""

OPENVINO = QuantizedForm(CPU_WEIGHT_LEVELS, unsigned=True)
ONNXRUNTIME = QuantizedForm(CPU_WEIGHT_LEVELS, unsigned=True, results=True)
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
