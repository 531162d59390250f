"""An export that differs from the model, or leaves half a bundle behind, is worse than none."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from tests.export.models import ModelSpec, build_model, write_model
from tests.tiny_models import tiny_model
from vidseg.export.exporter import ExportRequest, export_model
from vidseg.export.graph import Graph
from vidseg.export.head import find_head
from vidseg.export.model import load_model
from vidseg.export.verify import OriginalModel, check_agreement
from vidseg.runtime.bundle import open_bundle
from vidseg.runtime.engines import predict
from vidseg.runtime.engines.onnxruntime import OnnxRuntimeEngine
from vidseg.runtime.engines.opening import EngineName, open_engine
from vidseg.runtime.errors import ConfigurationError, ModelError, SourceError, UsageError, VidsegError
from vidseg.runtime.frame import Image
from vidseg.runtime.manifest import InputSpec
from vidseg.runtime.upsampling import SparseUpsampler

FRAMES = "scene://street?pace=max&fps=0.5&frames=4&size=64x48"


@pytest.fixture
def request_for(tmp_path: Path) -> ExportRequest:
    """A request that works, in a folder of its own."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in/names.txt").write_text("one\ntwo #102030\nthree\nfour\n")
    return ExportRequest(
        model=write_model(tmp_path / "in/model.onnx"),
        out=tmp_path / "out/model.vidseg",
        labels=str(tmp_path / "in/names.txt"),
        frames=FRAMES,
    )


CASES = [
    ModelSpec(),
    ModelSpec(layout="NHWC"),
    ModelSpec(head_layout="NHWC"),
    ModelSpec(layout="NHWC", head_layout="NHWC", head="softmax"),
    ModelSpec(head="softmax"),
    ModelSpec(head="softmax", head_layout="NHWC"),
    ModelSpec(stride=2),
    ModelSpec(stride=4, head_layout="NHWC"),
    ModelSpec(stride=8, head="softmax"),
    ModelSpec(stride=8, size_wh=(60, 44)),
    ModelSpec(stride=4, upsampled="half_pixel"),
    ModelSpec(stride=4, upsampled="align_corners", head="softmax"),
    ModelSpec(stride=8, upsampled="asymmetric", head_layout="NHWC"),
    ModelSpec(stride=4, upsampled="pytorch_half_pixel", opset=18),
    ModelSpec(head="sigmoid"),
    ModelSpec(head="sigmoid", layout="NHWC", head_layout="NHWC"),
    ModelSpec(head="sigmoid", stride=4),
    ModelSpec(head="sigmoid by class"),
    ModelSpec(head="sigmoid by class", stride=4),
    ModelSpec(dynamic=True),
    ModelSpec(dynamic=True, layout="NHWC", stride=2),
    ModelSpec(weights_as_inputs=True),
    ModelSpec(opset=11, weights_as_inputs=True),
    ModelSpec(opset=18),
    ModelSpec(opset=20, head="softmax"),
]


@pytest.mark.parametrize("spec", CASES, ids=repr)
def test_every_head_and_layout_gives_the_originals_classes(request_for: ExportRequest, spec: ModelSpec) -> None:
    write_model(Path(request_for.model), spec)
    request = replace(
        request_for,
        size_wh=spec.size_wh,
        mean=(0.4, 0.5, 0.3),
        std=(0.2, 0.25, 0.3),
        labels="portrait" if spec.head == "sigmoid" else request_for.labels,
    )
    report = export_model(request)
    is_cut = spec.stride > 1 and spec.head != "sigmoid"
    floats = ["float", "float-cut"] if is_cut else ["float"]
    assert list(report.accuracy) == [*floats, "fp16"]
    for name, accuracy in report.accuracy.items():
        assert accuracy.keys() == ({"exact"} if name == "fp16" else {"onnxruntime", "openvino"})
        assert min(engine.agreement for engine in accuracy.values()) >= (0.999 if name == "fp16" else 0.9995)
    bundle = open_bundle(request.out)
    model = onnx.load_from_string(bundle.members["model.onnx"])
    assert model.ir_version <= 8
    assert 13 <= model.opset_import[0].version <= 17
    assert [value.name for value in model.graph.input] == ["image"]
    assert [node.op_type for node in model.graph.node if "image" in node.input] == ["Cast"]
    for content in (bundle.members["model.onnx"], bundle.members["fp16.onnx"]):
        assert Graph(content).has_open_batch
    for image, class_map in bundle.samples():
        names: tuple[EngineName, ...] = ("onnxruntime", "openvino")
        for engine_name, variant in itertools.product(names, floats):
            with open_engine(bundle, engine_name, variant, confidence=True) as engine:
                prediction = predict(engine, image)
            assert (prediction.class_map == class_map).mean() > 0.999
            assert prediction.confidence is not None
            assert np.abs(prediction.confidence - _confidence(request, spec, image)).max() < 1.01
    assert len(np.unique(class_map)) > 1  # a model that says one thing everywhere proves nothing


def _confidence(request: ExportRequest, spec: ModelSpec, image: Image) -> NDArray[np.float32]:
    """By hand: the largest probability on the logits' grid, then bilinear, 0..255."""
    model = build_model(spec)
    model.graph.output.append(helper.make_tensor_value_info("c", TensorProto.FLOAT, [None] * 4))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    pixels = (image[..., ::-1] * request.scale - np.array(request.mean)) / np.array(request.std)
    planes = pixels if spec.layout == "NHWC" else pixels.transpose(2, 0, 1)
    (logits,) = session.run(["c"], {"input": planes[None].astype(np.float32)})[0]
    if spec.head == "sigmoid":
        largest = 0.5 + np.abs(1 / (1 + np.exp(-logits[0])) - 0.5)
    elif spec.head == "sigmoid by class":
        largest = (1 / (1 + np.exp(-logits))).max(axis=0)
    else:
        exponentials = np.exp(logits - logits.max(axis=0))
        largest = (exponentials / exponentials.sum(axis=0)).max(axis=0)
    alignment: Any = spec.upsampled.removeprefix("pytorch_") or "half_pixel"
    grid_wh = (largest.shape[1], largest.shape[0])
    return SparseUpsampler(grid_wh, spec.size_wh, alignment).plane(largest.astype(np.float32)) * 255


@pytest.mark.parametrize("name", ["image", "class_map", "confidence", "scores", "vidseg_mean"])
@pytest.mark.parametrize("place", ["input", "w2", "b", "c"])
def test_a_model_may_use_the_names_that_a_bundle_uses(request_for: ExportRequest, name: str, place: str) -> None:
    """As its input, a weight, a tensor inside and its output."""
    model = build_model(ModelSpec(stride=4))
    graph = model.graph
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = name if value.name == place else value.name
    for node in graph.node:
        node.input[:] = [name if tensor == place else tensor for tensor in node.input]
        node.output[:] = [name if tensor == place else tensor for tensor in node.output]
    onnx.save(model, str(request_for.model))
    export_model(replace(request_for, output=name if place == "c" else None))
    bundle = open_bundle(request_for.out)
    for image, class_map in bundle.samples():
        with open_engine(bundle, variant="float-cut", confidence=True) as engine:
            assert (predict(engine, image).class_map == class_map).mean() > 0.999


@pytest.mark.parametrize("color", ["RGB", "BGR"])
def test_preprocessing_is_what_the_options_say(request_for: ExportRequest, color: str) -> None:
    """A model that returns its input: the class is the channel that is largest after (value * scale - mean) / std."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 48, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 48, 64])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(request_for.model))
    (Path(request_for.model).parent / "three.txt").write_text("a\nb\nc")
    mean, std, scale = (0.3, 0.5, 0.1), (0.5, 0.2, 0.4), 1 / 200
    export_model(
        replace(
            request_for,
            labels=str(Path(request_for.model).parent / "three.txt"),
            color=color,
            mean=mean,
            std=std,
            scale=scale,
        )
    )
    image = np.random.default_rng(0).integers(0, 256, (1, 48, 64, 3), dtype=np.uint8)
    channels = image[0] if color == "BGR" else image[0, ..., ::-1]
    expected = ((channels * scale - np.array(mean)) / np.array(std)).argmax(axis=-1)
    with open_engine(open_bundle(request_for.out)) as engine:
        assert (engine.enqueue(image).result()["class_map"][0] == expected).mean() > 0.999


def test_the_same_input_gives_the_same_bundle(request_for: ExportRequest) -> None:
    export_model(request_for)
    first = request_for.out.read_bytes()
    export_model(replace(request_for, overwrite=True))
    assert request_for.out.read_bytes() == first


def test_the_bundle_tells_what_it_was_made_of(request_for: ExportRequest) -> None:
    export_model(replace(request_for, fit="letterbox"))
    manifest = open_bundle(request_for.out).manifest
    assert manifest.input.fit == "letterbox"
    assert [spec.name for spec in manifest.output.classes] == ["one", "two", "three", "four"]
    assert manifest.output.classes[1].color_rgb == (0x10, 0x20, 0x30)
    assert manifest.provenance.model_name == "model.onnx"
    assert manifest.provenance.frames_source == FRAMES
    assert len(manifest.samples) == 4
    assert manifest.variants[0].accuracy["onnxruntime"].frames == 4


def test_without_samples_no_picture_is_kept(request_for: ExportRequest) -> None:
    export_model(replace(request_for, samples=False))
    assert set(open_bundle(request_for.out).members) == {"model.onnx", "fp16.onnx"}


def test_an_output_is_chosen_by_name(request_for: ExportRequest) -> None:
    write_model(Path(request_for.model), ModelSpec(second_output=True))
    with pytest.raises(ModelError, match=r"several outputs: got c \[1, 4, 48, 64\], b \[1, 8, 48, 64\].*--output"):
        export_model(request_for)
    with pytest.raises(ModelError, match="no output is named 'd'"):
        export_model(replace(request_for, output="d"))
    export_model(replace(request_for, output="c"))


def test_a_graph_that_differs_is_refused(request_for: ExportRequest) -> None:
    """The check itself has to notice: here it gets an engine of another model."""
    model = load_model(Path(request_for.model), None)
    head = find_head(model, None, 4)
    spec = InputSpec(size_wh=(64, 48), fit="stretch", color="RGB", scale=1 / 255, mean=(0.0,) * 3, std=(1.0,) * 3)
    images = [np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)]
    class_maps = [OriginalModel(model, head, spec).class_map(image) for image in images]
    with OnnxRuntimeEngine(tiny_model((64, 48))) as other, pytest.raises(ModelError, match="differs from the original"):
        check_agreement(class_maps, {"onnxruntime": other}, images, "model")


def test_labels_of_known_sets_and_of_the_model_itself(request_for: ExportRequest) -> None:
    model = build_model(ModelSpec(classes=11))
    entry = model.metadata_props.add()
    entry.key, entry.value = "classes", ", ".join("abcdefghijk")
    onnx.save(model, str(request_for.model))
    export_model(replace(request_for, labels=None))
    assert open_bundle(request_for.out).manifest.output.classes[10].name == "k"
    export_model(replace(request_for, labels="camvid", overwrite=True))
    assert open_bundle(request_for.out).manifest.output.classes[8].name == "car"


def _graph(nodes: list[Any], shape: list[Any], *, domain: str = "") -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "bad",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * len(shape))],
    )
    opsets = [helper.make_opsetid("", 13)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _node(operator: str, **attributes: Any) -> Any:
    return helper.make_node(operator, ["x"], ["y"], name="the_node", **attributes)


BAD_MODELS = {
    "an unknown operator": (
        _graph([_node("Frobnicate")], [1, 3, 48, 64]),
        "'the_node' has an unknown operator: got Frob",
    ),
    "an unknown domain": (_graph([_node("Gelu", domain="com.x")], [1, 3, 48, 64], domain="com.x"), r"com\.x\.Gelu"),
    "no batch axis": (_graph([_node("Relu")], [3, 48, 64]), r"no batch axis: got x \(3, 48, 64\)"),
    "a fixed batch": (_graph([_node("Relu")], [8, 3, 48, 64]), "batch is fixed"),
    "one channel": (_graph([_node("Relu")], [1, 1, 48, 64]), r"not 3 channels: got x \(1, 1, 48, 64\)"),
    "four channels": (_graph([_node("Relu")], [1, 4, 48, 64]), "not 3 channels"),
    "an output of another shape": (_graph([_node("GlobalAveragePool")], [1, 3, 48, 64]), "in no layout"),
    "too many classes": (build_model(ModelSpec(classes=300)), "too many classes: got 300"),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_a_model_that_cannot_be_exported_is_one_line(request_for: ExportRequest, name: str) -> None:
    model, message = BAD_MODELS[name]
    onnx.save(model, str(request_for.model))
    _refused(replace(request_for, labels="camvid"), VidsegError, message)


def test_files_that_are_no_models(request_for: ExportRequest) -> None:
    content = Path(request_for.model).read_bytes()
    for wrong in (b"", b"hello", content[:100], content[: len(content) // 2]):
        Path(request_for.model).write_bytes(wrong)
        _refused(request_for, ModelError, "not an ONNX model|not a valid ONNX model|cannot be read")
    Path(request_for.model).unlink()
    _refused(request_for, ModelError, "no such file")


def test_labels_that_do_not_fit(request_for: ExportRequest) -> None:
    names = Path(str(request_for.labels))
    names.write_text("one\ntwo\n")
    _refused(request_for, ConfigurationError, "2 names for a model of 4 classes")
    names.write_bytes(b"\xff\xfe\x00")
    _refused(request_for, ConfigurationError, "cannot be read")
    names.unlink()
    _refused(request_for, ConfigurationError, "no label set and no file")
    _refused(replace(request_for, labels=None), ConfigurationError, "does not name its classes")


def test_sizes_and_numbers_that_do_not_fit(request_for: ExportRequest) -> None:
    _refused(replace(request_for, size_wh=(32, 32)), ModelError, "--size 32x32 for 64x48")
    write_model(Path(request_for.model), ModelSpec(dynamic=True))
    _refused(request_for, ModelError, r"size is open: got \(batch, 3, rows, columns\)")
    for wrong in ({"scale": 0.0}, {"std": (1.0, 0.0, 1.0)}, {"mean": (float("nan"),) * 3}, {"color": "HSV"}):
        with pytest.raises(UsageError):
            replace(request_for, **wrong)


def test_a_pytorch_model_and_a_file_have_their_own_options(request_for: ExportRequest) -> None:
    with pytest.raises(UsageError, match="nets:build: a PyTorch model needs --size"):
        replace(request_for, model="nets:build")
    with pytest.raises(UsageError, match=r"--weights goes with a PyTorch model only: got .*model\.onnx"):
        replace(request_for, weights=Path("best.pt"))
    _refused(replace(request_for, model="nets.build"), ModelError, "nets.build: there is no such file")


def test_a_file_whose_name_looks_like_a_function_is_a_file(
    request_for: ExportRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(request_for.model).parent)
    Path(request_for.model).rename("nets:build")
    export_model(replace(request_for, model="nets:build"))
    assert open_bundle(request_for.out).manifest.provenance.model_name == "nets:build"


def test_frames_and_places_that_are_not_there(request_for: ExportRequest, tmp_path: Path) -> None:
    _refused(replace(request_for, frames=str(tmp_path / "nothing.mp4")), SourceError, "nothing.mp4")
    _refused(replace(request_for, frames="scene://street"), UsageError, "live")
    with pytest.raises(ConfigurationError, match="folder is missing"):
        export_model(replace(request_for, out=tmp_path / "missing/x.vidseg"))


def test_an_existing_bundle_is_kept(request_for: ExportRequest) -> None:
    request_for.out.write_text("precious")
    with pytest.raises(ConfigurationError, match="--overwrite"):
        export_model(request_for)
    assert request_for.out.read_text() == "precious"


def test_images_as_frames(request_for: ExportRequest, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        picture = np.random.default_rng(number).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), picture)
    assert export_model(replace(request_for, frames=str(folder))).accuracy["float"]["onnxruntime"].frames == 3


def _refused(request: ExportRequest, kind: type[VidsegError], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        export_model(request)
    assert "\n" not in str(caught.value)
    assert list(request.out.parent.iterdir()) == []
