"""A batch in which one picture shows in the result of another makes masks of what another camera saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from tests.export.models import ModelSpec, build_model, write_model
from tests.export.quantizable import KINDS, SIZE_WH, WIDTH, Drawing, core_groups, images, quantizable, ranges_of_kind
from vidseg.export.batch import with_batch_axis
from vidseg.export.exporter import ExportRequest, export_model
from vidseg.export.graph import Graph
from vidseg.export.groups import find_groups
from vidseg.export.half import in_half
from vidseg.export.qdq import quantize
from vidseg.export.rtx import RtxOptions, build_rtx
from vidseg.export.rtx_build import COMPILER
from vidseg.runtime.bundle import Bundle, open_bundle
from vidseg.runtime.engines import predict
from vidseg.runtime.engines.graph import GraphOptions
from vidseg.runtime.engines.onnxruntime import BATCH_AXIS
from vidseg.runtime.engines.opening import EngineName, open_graph
from vidseg.runtime.frame import Image

FRAMES = "scene://street?pace=max&fps=0.5&frames=4&size=64x48"


def two() -> tuple[Image, Image]:
    first, second = images(2)
    return first, second


def opened(content: bytes) -> bytes:
    found = with_batch_axis(content, two())
    assert found is not None
    return found


def run(content: bytes, batch: NDArray[np.uint8]) -> list[NDArray[Any]]:
    """All outputs, in a library that is told nothing of the batch before."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return [np.asarray(output) for output in session.run(None, {"image": batch})]


def _odd_resize(draw: Drawing) -> str:
    """By factors that are no float32 numbers, and back."""
    sizes = [draw.weight(np.array([1, WIDTH, *size], np.int64)) for size in ((31, 45), (24, 32))]
    large = draw.node("Resize", [draw.stem(), "", "", sizes[0]], mode="linear")
    return draw.node("Resize", [large, "", "", sizes[1]], mode="linear")


def _halved_resize(draw: Drawing) -> str:
    sizes = [draw.weight(np.array([1, WIDTH, *size], np.int64)) for size in ((12, 48), (24, 32))]
    small = draw.node("Resize", [draw.stem(), "", "", sizes[0]], mode="nearest")
    return draw.node("Resize", [small, "", "", sizes[1]], mode="linear")


def _constant_planes(draw: Drawing) -> str:
    """Beside activations, as ENet writes them."""
    planes = draw.weight(np.full((1, WIDTH, 24, 32), 0.5, np.float32))
    return draw.conv(draw.node("Concat", [planes, draw.stem()], axis=1), (WIDTH, 2 * WIDTH, 3, 3))


def _class_token(draw: Drawing) -> str:
    """As a vision transformer puts it before the tokens of the picture."""
    shapes = [draw.weight(np.array(shape, np.int64)) for shape in ([1, WIDTH, -1], [1, WIDTH, 24, 32])]
    token = draw.random(1, WIDTH, 1)
    tokens = draw.node("Concat", [token, draw.node("Reshape", [draw.stem(), shapes[0]])], axis=-1)
    bounds = [draw.weight(np.array([bound], np.int64)) for bound in (1, 24 * 32 + 1, 2)]
    return draw.node("Reshape", [draw.node("Slice", [tokens, *bounds]), shapes[1]])


def _rows(draw: Drawing) -> str:
    """Tokens of all pictures in one matrix, as exporters of products write it."""
    shapes = [draw.weight(np.array(shape, np.int64)) for shape in ([24 * 32, WIDTH], [1, 24, 32, WIDTH])]
    rows = draw.node("Reshape", [draw.node("Transpose", [draw.stem()], perm=[0, 2, 3, 1]), shapes[0]])
    product = draw.node("Gemm", [rows, draw.random(WIDTH, WIDTH), draw.random(WIDTH)])
    return draw.node("Transpose", [draw.node("Reshape", [product, shapes[1]])], perm=[0, 3, 1, 2])


def _windows(draw: Drawing) -> str:
    """Of 8x8 pixels, each for itself, as Swin's attention takes them."""
    shapes = ([1, WIDTH, 3, 8, 4, 8], [12, WIDTH, 8, 8], [1, 3, 4, WIDTH, 8, 8], [1, WIDTH, 24, 32])
    names = [draw.weight(np.array(shape, np.int64)) for shape in shapes]
    cut = draw.node("Transpose", [draw.node("Reshape", [draw.stem(), names[0]])], perm=[0, 2, 4, 1, 3, 5])
    windows = draw.node("Reshape", [cut, names[1]])
    above = draw.node("Sub", [windows, draw.node("ReduceMean", [windows], axes=[-2, -1])])
    whole = draw.node("Transpose", [draw.node("Reshape", [above, names[2]])], perm=[0, 3, 1, 4, 2, 5])
    return draw.node("Reshape", [whole, names[3]])


TAKING_MANY = {**KINDS, "odd resize": _odd_resize, "halved resize": _halved_resize, "rows": _rows, "windows": _windows,
               "constant planes": _constant_planes, "class token": _class_token}  # fmt: skip


def _mean_of_all(draw: Drawing) -> str:
    """Of all pictures in a batch."""
    stem = draw.stem()
    return draw.node("Sub", [stem, draw.node("ReduceMean", [stem], axes=[0, 2, 3], keepdims=1)])


def _only_the_first(draw: Drawing) -> str:
    return draw.node("Add", [draw.stem(), draw.node("Gather", [draw.stem(), draw.weight(np.array([0]))], axis=0)])


def _without_first_axis(draw: Drawing) -> str:
    planes = draw.node("Squeeze", [draw.stem(), draw.weight(np.array([0]))])
    return draw.node("Unsqueeze", [planes, draw.weight(np.array([0]))])


TAKING_ONE = {"mean of all": _mean_of_all, "only the first": _only_the_first, "without axis": _without_first_axis}


def drawn(ending: Any) -> bytes:
    draw = Drawing()
    return draw.finished(ending(draw))


@pytest.mark.parametrize("kind", TAKING_MANY)
def test_a_picture_gets_in_any_batch_what_it_gets_alone(kind: str) -> None:
    content = drawn(TAKING_MANY[kind])
    found = opened(content)
    onnx.checker.check_model(onnx.load_from_string(found), full_check=True)
    model = onnx.load_from_string(found)
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == BATCH_AXIS
    pictures = np.stack(images(3))
    wanted = [np.concatenate(outputs) for outputs in zip(*(run(content, one[None]) for one in pictures), strict=True)]
    assert len(np.unique(wanted[0])) > 1
    for together, alone in zip(run(found, pictures), wanted, strict=True):
        np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("kind", TAKING_ONE)
def test_a_graph_in_which_pictures_meet_is_found(kind: str) -> None:
    assert with_batch_axis(drawn(TAKING_ONE[kind]), two()) is None


@pytest.mark.parametrize("kind", ["residual", "product"])
def test_quantized_graphs_and_those_in_float16_take_batches_too(kind: str) -> None:
    graph = Graph(quantizable(kind))
    master = quantize(graph, core_groups(graph), ranges_of_kind(kind))
    for content in (master, in_half(quantizable(kind)), in_half(master)):
        pictures = np.stack(images(3))
        (together,) = run(opened(content), pictures)
        alone = np.concatenate([run(content, one[None])[0] for one in pictures])
        np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("kind", ["product", "odd resize"])
def test_an_opened_graph_is_read_as_one_for_one_picture_and_written_open(kind: str) -> None:
    """Linters and reports go on to see every layer of a bundle's graphs."""
    content = drawn(TAKING_MANY[kind])
    found = opened(content)
    fixed, graph = Graph(content), Graph(found)
    assert find_groups(graph) == find_groups(fixed)
    assert all(graph.shape(name) == fixed.shape(name) for node in fixed.nodes for name in node.output)
    assert graph.has_open_batch
    assert graph.serialized() == found
    assert opened(content) == found  # the same input gives the same bytes


@pytest.mark.parametrize("engine_name", ["onnxruntime", "openvino"])
def test_engines_of_one_picture_go_on_as_before(engine_name: EngineName) -> None:
    for kind in ("odd resize", "constant planes", "windows"):
        content = drawn(TAKING_MANY[kind])
        with (
            open_graph(content, engine_name, GraphOptions()) as before,
            open_graph(opened(content), engine_name, GraphOptions()) as after,
        ):
            assert after.input_shape_nhwc == before.input_shape_nhwc == (1, *SIZE_WH[::-1], 3)
            for image in images():
                np.testing.assert_array_equal(predict(after, image).class_map, predict(before, image).class_map)


@pytest.fixture
def request_for(tmp_path: Path) -> ExportRequest:
    write_model(tmp_path / "model.onnx", ModelSpec(stride=4, size_wh=(60, 44)))
    (tmp_path / "names.txt").write_text("one\ntwo\nthree\nfour\n")
    out, labels = tmp_path / "model.vidseg", str(tmp_path / "names.txt")
    return ExportRequest(model=tmp_path / "model.onnx", out=out, labels=labels, frames=FRAMES)


def exported(request: ExportRequest) -> tuple[Bundle, list[str]]:
    lines: list[str] = []
    export_model(request, lines.append)
    return open_bundle(request.out), lines


def test_a_bundle_whose_model_takes_one_picture_says_so_and_works(request_for: ExportRequest) -> None:
    """A model whose normalization is by the mean of the whole batch."""
    model = build_model(ModelSpec())
    mean = helper.make_node("ReduceMean", ["c"], ["mean"], axes=[0, 2, 3], keepdims=1)
    model.graph.node.extend([mean, helper.make_node("Sub", ["c", "mean"], ["less"])])
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("less", TensorProto.FLOAT, [None] * 4))
    onnx.save(model, str(request_for.model))
    bundle, lines = exported(request_for)
    assert [line.partition(" ")[0] for line in lines if "takes one picture at a time" in line] == [
        "model.onnx",
        "fp16.onnx",
    ]
    for member in ("model.onnx", "fp16.onnx"):
        assert not Graph(bundle.members[member]).has_open_batch


def test_nvidias_compiler_takes_an_exported_model_with_a_profile_of_batches(request_for: ExportRequest) -> None:
    """With a Resize by 60/15 and 44/11, and confidence: all that a bundle's own ending has."""
    pytest.importorskip(COMPILER)
    bundle, _ = exported(request_for)
    outputs = ("class_map", "confidence", "scores")
    for member in ("model.onnx", "fp16.onnx"):
        activations = []
        for most in (1, 4):
            options = RtxOptions(compute_capabilities=(86,), outputs=outputs, max_batch=most)
            (plan,) = build_rtx(bundle.members[member], options).plans
            assert plan.plan_bytes > 0
            activations.append(plan.activations_bytes or 0)
        assert activations[1] > activations[0]  # it is made for more than one
