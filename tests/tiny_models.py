"""Small models and bundles that say exactly what they should give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from vidseg.runtime.bundle import sha256_of
from vidseg.runtime.bundle_writer import write_bundle
from vidseg.runtime.manifest import (
    FORMAT,
    ClassSpec,
    InputSpec,
    Manifest,
    OutputSpec,
    ProvenanceSpec,
    SampleSpec,
    VariantSpec,
)

CLASSES = (
    ClassSpec(name="blue", color_rgb=(0, 0, 255)),
    ClassSpec(name="green", color_rgb=(0, 255, 0)),
    ClassSpec(name="red", color_rgb=(255, 0, 0)),
)


def brightest_channel(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What `tiny_model` gives: the number of the brightest channel, the first of equals."""
    index: NDArray[np.uint8] = image.argmax(axis=-1).astype(np.uint8)
    return index


def tiny_model(size_wh: tuple[int, int] = (16, 12)) -> bytes:
    """A graph of the contract whose class of a pixel is its brightest channel."""
    width, height = size_wh
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "weight"], ["logits"]),
        helper.make_node("ArgMax", ["logits"], ["index"], axis=1, keepdims=0),
        helper.make_node("Cast", ["index"], ["index_float"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["index_float"], ["class_map"], to=TensorProto.UINT8),
    ]
    weight = onnx.numpy_helper.from_array(np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1), "weight")
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, height, width, 3])],
        [helper.make_tensor_value_info("class_map", TensorProto.UINT8, [1, height, width])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def tiny_parts(size_wh: tuple[int, int] = (16, 12), *, samples: bool = True) -> tuple[Manifest, dict[str, bytes]]:
    """A manifest and the members that it names."""
    import cv2

    image = np.random.default_rng(0).integers(0, 256, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
    members = {
        "model.onnx": tiny_model(size_wh),
        "samples/0.png": cv2.imencode(".png", image)[1].tobytes(),
        "samples/0-classes.png": cv2.imencode(".png", brightest_channel(image))[1].tobytes(),
    }
    if not samples:
        members = {"model.onnx": members["model.onnx"]}
    manifest = Manifest(
        format=FORMAT,
        task="semantic",
        input=InputSpec(
            size_wh=size_wh, fit="stretch", color="BGR", scale=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
        ),
        output=OutputSpec(size_wh=size_wh, classes=CLASSES),
        variants=(
            VariantSpec(
                name="float", file="model.onnx", precision="fp32", targets=("onnxruntime", "openvino"), accuracy={}
            ),
        ),
        samples=(SampleSpec(image="samples/0.png", class_map="samples/0-classes.png"),) if samples else (),
        provenance=ProvenanceSpec(
            model_name="tiny.onnx",
            model_sha256=sha256_of(members["model.onnx"]),
            frames_source="random",
            frames_sha256=sha256_of(image.tobytes()),
            tools={"vidseg": "0"},
        ),
        members={},
    )
    return manifest, members


def write_tiny_bundle(path: Path, size_wh: tuple[int, int] = (16, 12), *, samples: bool = True) -> Path:
    """A whole bundle around `tiny_model`."""
    manifest, members = tiny_parts(size_wh, samples=samples)
    write_bundle(path, manifest, members)
    return path
