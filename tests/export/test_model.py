"""Models come in every opset and shape that frameworks write: what is taken must be right, what is not, named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from tests.export.models import ModelSpec, build_model
from vidseg.export.exporter import ExportRequest, export_model
from vidseg.export.head import find_head
from vidseg.export.model import load_model
from vidseg.runtime.errors import ModelError

SIZE_WH = (32, 24)
SHAPE = [1, 3, 24, 32]


def _save(path: Path, nodes: list[Any], opset: int, weights: dict[str, Any] | None = None) -> Path:
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, str(path))
    return path


def _node(operator: str, inputs: list[str], outputs: list[str], **attributes: Any) -> Any:
    return helper.make_node(operator, inputs, outputs, name=f"the_{operator}", **attributes)


NEW_FORMS: dict[str, tuple[int, list[Any], dict[str, Any]]] = {
    "padding along named axes": (
        18,
        [_node("Pad", ["x", "pads", "", "axes"], ["y"])],
        {"pads": np.array([1, 2, 1, 2]), "axes": np.array([2, 3])},
    ),
    "a split into equal parts": (
        18,
        [_node("Split", ["x"], ["a", "b"], axis=2, num_outputs=2), _node("Concat", ["b", "a"], ["y"], axis=2)],
        {},
    ),
    "a mean over axes given as input": (
        18,
        [_node("ReduceMean", ["x", "axes"], ["m"], keepdims=1), _node("Sub", ["x", "m"], ["y"])],
        {"axes": np.array([2, 3])},
    ),
    "a resize of opset 19": (
        19,
        [_node("Resize", ["x", "", "scales"], ["y"], mode="linear")],
        {"scales": np.array([1, 1, 2, 2], np.float32)},
    ),
    "a GELU": (20, [_node("Gelu", ["x"], ["y"])], {}),
    "a group normalization": (
        21,
        [_node("GroupNormalization", ["x", "scale", "bias"], ["y"], num_groups=3)],
        {"scale": np.ones(3, np.float32), "bias": np.zeros(3, np.float32)},
    ),
}


@pytest.mark.parametrize("name", NEW_FORMS)
def test_newer_opsets_are_brought_down_without_changing_a_value(tmp_path: Path, name: str) -> None:
    opset, nodes, weights = NEW_FORMS[name]
    path = _save(tmp_path / "model.onnx", nodes, opset, weights)
    model = load_model(path, None).graph_model
    assert model.opset_import[0].version <= 17
    image = np.random.default_rng(0).normal(0, 1, SHAPE).astype(np.float32)
    before, after = (
        onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"x": image})[0]
        for content in (path.read_bytes(), model.SerializeToString())
    )
    assert np.allclose(before, after, atol=1e-6)


def test_what_opset_17_cannot_say_is_named(tmp_path: Path) -> None:
    path = _save(tmp_path / "model.onnx", [_node("Pad", ["x", "pads"], ["y"], mode="wrap")], 19, {"pads": [0] * 8})
    with pytest.raises(ModelError, match=r"the_Pad.*no equal in opset 17: got mode=wrap"):
        load_model(path, None)


def test_local_functions_are_inlined(tmp_path: Path) -> None:
    double = helper.make_function(
        "my", "Double", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 13)]
    )
    graph = helper.make_graph(
        [helper.make_node("Double", ["x"], ["y"], domain="my")],
        "model",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, SHAPE)],
    )
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("my", 1)]
    onnx.save(
        helper.make_model(graph, opset_imports=opsets, functions=[double], ir_version=8), str(tmp_path / "m.onnx")
    )
    assert [node.op_type for node in load_model(tmp_path / "m.onnx", None).graph_model.graph.node] == ["Add"]


def test_one_channel_of_logits_is_refused_even_behind_a_resize(tmp_path: Path) -> None:
    """Taken for a probability, it would give wrong masks in silence."""
    nodes = [
        _node("Conv", ["x", "w"], ["c"], strides=[2, 2], kernel_shape=[1, 1]),
        _node("Resize", ["c", "", "scales"], ["y"], mode="linear"),
    ]
    weights = {"w": np.ones((1, 3, 1, 1), np.float32), "scales": np.array([1, 1, 2, 2], np.float32)}
    model = load_model(_save(tmp_path / "model.onnx", nodes, 13, weights), None)
    with pytest.raises(ModelError, match="one channel that is no sigmoid"):
        find_head(model, None, None)


def test_class_ids_as_output_are_refused_with_what_to_do(tmp_path: Path) -> None:
    model = build_model(ModelSpec())
    model.graph.node.append(helper.make_node("ArgMax", ["c"], ["ids"], axis=1))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("ids", TensorProto.INT64, [None] * 4))
    onnx.save(model, str(tmp_path / "model.onnx"))
    with pytest.raises(ModelError, match="whole numbers"):
        find_head(load_model(tmp_path / "model.onnx", None), None, None)


def test_weights_that_are_no_numbers_are_noticed(tmp_path: Path) -> None:
    model = build_model(ModelSpec())
    model.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(np.full(8, np.nan, np.float32), "b1"))
    onnx.save(model, str(tmp_path / "model.onnx"))
    frames = "scene://street?pace=max&frames=1&size=64x48"
    request = ExportRequest(model=tmp_path / "model.onnx", out=tmp_path / "x.vidseg", labels="voc", frames=frames)
    with pytest.raises(ModelError, match="no numbers"):
        export_model(_with_four_labels(request, tmp_path))
    assert not (tmp_path / "x.vidseg").exists()


def _with_four_labels(request: ExportRequest, folder: Path) -> ExportRequest:
    from dataclasses import replace

    (folder / "names.txt").write_text("a\nb\nc\nd")
    return replace(request, labels=str(folder / "names.txt"))


def test_external_weights_count_in_the_checksum_and_stay_in_their_folder(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"

    def save() -> None:
        onnx.save(
            build_model(ModelSpec()), str(path), save_as_external_data=True, location="weights.bin", size_threshold=0
        )

    save()
    first = load_model(path, None).sha256
    weights = bytearray((tmp_path / "weights.bin").read_bytes())
    weights[0] ^= 1
    (tmp_path / "weights.bin").write_bytes(weights)
    assert load_model(path, None).sha256 != first
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../weights.bin"
    onnx.save(model, str(path))
    (tmp_path.parent / "weights.bin").write_bytes(weights)
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(path, None)
    (tmp_path.parent / "weights.bin").unlink()
