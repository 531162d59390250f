"""Graphs of the contract for TensorRT, and bundles of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.tiny_models import tiny_parts
from vidseg.runtime.bundle import Bundle, sha256_of
from vidseg.runtime.manifest import VariantSpec

SIZE_WH = (32, 16)


def graph(
    batch: int | str = 1, *, quantized: bool = False, half: bool = False, outputs: int = 1, scores: str = "scores"
) -> bytes:
    """A convolution of 16 channels, `planes` to `scores`, and the end of the contract.

    Args:
        batch: a name leaves it free.
        quantized: with Q/DQ before the convolution.
        half: the convolution is float16.
        outputs: 2 gives `confidence` too.
        scores: another name for them.
    """
    width, height = SIZE_WH
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    dtype = np.float16 if half else np.float32
    weight = (np.random.default_rng(0).standard_normal((16, 3, 3, 3)) / 100).astype(dtype)
    nodes = [
        helper.make_node("Cast", ["image"], ["cast"], to=kind, name="cast"),
        helper.make_node("Transpose", ["cast"], ["planes"], perm=[0, 3, 1, 2], name="transpose"),
        *(_pair("planes", "weight") if quantized else []),
        helper.make_node(
            "Conv", ["planes/dq", "weight/dq"] if quantized else ["planes", "weight"], [scores],
            pads=[1, 1, 1, 1], name="conv",
        ),
        helper.make_node("ArgMax", [scores], ["index"], axis=1, keepdims=0, name="argmax"),
        helper.make_node("Cast", ["index"], ["index_float"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["index_float"], ["class_map"], to=TensorProto.UINT8),
        helper.make_node("ReduceMax", [scores], ["top"], axes=[1], keepdims=0),
        helper.make_node("Cast", ["top"], ["confidence"], to=TensorProto.UINT8),
    ]  # fmt: skip
    initializers = [onnx.numpy_helper.from_array(weight, "weight")]
    if quantized:
        initializers += [
            onnx.numpy_helper.from_array(value, name)
            for name, value in (
                ("planes/scale", np.float32(2)), ("planes/zero", np.int8(0)),
                ("weight/scale", np.float32(0.001)), ("weight/zero", np.int8(0)),
            )
        ]  # fmt: skip
    given = [
        helper.make_tensor_value_info(name, TensorProto.UINT8, [batch, height, width])
        for name in ("class_map", "confidence")[:outputs]
    ]
    if outputs == 1:
        nodes = nodes[:-2]
    taken = helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, height, width, 3])
    made = helper.make_graph(nodes, "graph", [taken], given, initializers)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def _pair(tensor: str, weight: str) -> list[Any]:
    return [
        helper.make_node(kind, [source, f"{name}/scale", f"{name}/zero"], [result], name=result)
        for name in (tensor, weight)
        for kind, source, result in (
            ("QuantizeLinear", name, f"{name}/q"), ("DequantizeLinear", f"{name}/q", f"{name}/dq"),
        )
    ]  # fmt: skip


def refused_graph() -> bytes:
    """TensorRT's parser does not take indices of a MaxPool."""
    width, height = SIZE_WH
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("MaxPool", ["float"], ["pooled", "indices"], kernel_shape=[1, 1], name="pool_with_indices"),
        helper.make_node("Cast", ["indices"], ["class_map"], to=TensorProto.UINT8),
    ]
    taken = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, height, width, 3])
    given = helper.make_tensor_value_info("class_map", TensorProto.UINT8, [1, height, width, 3])
    made = helper.make_graph(nodes, "refused", [taken], [given])
    content: bytes = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    return content


def bundle_of(graphs: Mapping[str, bytes], **others: bytes) -> Bundle:
    """A bundle with these graphs by the variant's name, and other members."""
    manifest, members = tiny_parts(SIZE_WH, samples=False)
    members = {f"{name}.onnx": content for name, content in graphs.items()}
    members |= {name.replace("__", ".").replace("_", "-"): content for name, content in others.items()}
    variants = tuple(
        VariantSpec(
            name=name, file=f"{name}.onnx", precision="int8" if "int8" in name else "fp32", targets=("tensorrt",),
            accuracy={},
        )
        for name in graphs
    )  # fmt: skip
    sums = {name: sha256_of(content) for name, content in members.items()}
    return Bundle(Path("model.vidseg"), msgspec.structs.replace(manifest, variants=variants, members=sums), members)
