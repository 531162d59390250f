"""OpenVINO computes the border of some quantized graphs wrong unless they are written its way."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.export.quantizable import (
    KINDS,
    SCORES,
    WIDTH,
    Drawing,
    core_groups,
    images,
    measured_ranges,
    noise_share,
    quantizable,
    ranges_of_kind,
    run,
)
from vidseg.export.fuse import IMAGE_PREFIX
from vidseg.export.graph import Graph
from vidseg.export.lowering import CPU_WEIGHT_QMAX, ONNXRUNTIME, OPENVINO, for_openvino
from vidseg.export.observe import with_outputs
from vidseg.export.qdq import quantize
from vidseg.runtime.frame import Image


def flipped(draw: Drawing, planes: str) -> str:
    order = draw.weight(np.array([2, 1, 0], np.int64))
    return draw.node("Gather", [planes, order], IMAGE_PREFIX, axis=1)


@cache
def pooled(*, flip: bool = False) -> bytes:
    """The picture, averaged over a padded window, then a quantized convolution: as ESPNetv2 begins."""
    draw = Drawing()
    planes = draw.planes()
    planes = flipped(draw, planes) if flip else planes
    small = draw.node("AveragePool", [planes], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, count_include_pad=1)
    stem = draw.node("Relu", [draw.conv(small, (WIDTH, 3, 1, 1))])
    content = draw.finished(draw.node("Relu", [draw.conv(stem, (WIDTH, WIDTH, 3, 3))]))
    graph = Graph(content)
    groups = core_groups(graph)
    return with_outputs(Graph(quantize(graph, groups, measured_ranges(graph, groups, images()), OPENVINO)), [SCORES])


@pytest.mark.parametrize("flip", [False, True])
def test_the_border_behind_a_padded_average_is_right_in_openvino(flip: bool) -> None:
    wanted = run(pooled(flip=flip), SCORES, images())
    assert noise_share(run(for_openvino(pooled(flip=flip)), SCORES, images(), "openvino"), wanted) < 1e-5


def test_without_it_openvino_is_wrong_or_has_learned_better() -> None:
    """2026.4 loses 0.8 % of the power, all of it at the border."""
    wanted = run(pooled(), SCORES, images())
    found = run(pooled(), SCORES, images(), "openvino")
    share = noise_share(found, wanted)
    if share < 1e-5:
        pytest.skip("this OpenVINO needs no help: for_openvino may go when it is the oldest that is supported")
    inside = np.s_[..., 2:-2, 2:-2]
    assert share > 1e-3
    assert noise_share(found[inside], wanted[inside]) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_no_value_changes(kind: str) -> None:
    graph = Graph(quantizable(kind))
    content = with_outputs(Graph(quantize(graph, core_groups(graph), ranges_of_kind(kind), OPENVINO)), [SCORES])
    lowered = for_openvino(content)
    assert lowered != content
    assert for_openvino(content) == lowered
    for output in (SCORES, "class_map"):
        assert np.array_equal(run(lowered, output, images()), run(content, output, images()))


def test_float_graphs_and_extreme_pictures_give_the_same_too() -> None:
    content = with_outputs(Graph(quantizable("signed")), [SCORES])
    extremes: list[Image] = [np.full_like(images(1)[0], value) for value in (0, 255)]
    assert np.array_equal(run(for_openvino(content), SCORES, extremes), run(content, SCORES, extremes))


def test_a_picture_that_is_only_cast_is_left_as_it_is() -> None:
    draw = Drawing()
    data = draw.node("Cast", ["image"], IMAGE_PREFIX, to=TensorProto.FLOAT)
    data = draw.node("Transpose", [data], IMAGE_PREFIX, perm=[0, 3, 1, 2])
    content = draw.finished(draw.node("Relu", [draw.conv(data, (WIDTH, 3, 3, 3))]))
    assert for_openvino(content) == content


def test_subtractions_of_the_model_itself_are_left_as_they_are() -> None:
    draw = Drawing()
    data = draw.node("Cast", ["image"], to=TensorProto.FLOAT)
    data = draw.node("Transpose", [data], perm=[0, 3, 1, 2])
    data = draw.node("Sub", [data, draw.weight(np.array(3, np.float32))])
    content = draw.finished(draw.node("Relu", [draw.conv(data, (WIDTH, 3, 3, 3))]))
    assert for_openvino(content) == content


def test_what_is_written_is_sound_and_changes_one_place() -> None:
    before = Graph(with_outputs(Graph(quantizable("residual")), [SCORES]))
    after = Graph(for_openvino(before.serialized()))
    onnx.checker.check_model(after.model)
    added = [node for node in after.nodes if node.op_type == "Max"]
    assert len(added) == 1
    source = after.producer(added[0].input[0])
    assert source is not None
    assert source.op_type == "Mul"  # the last of what is done to the picture
    assert len(after.nodes) == len(before.nodes) + 1


@pytest.mark.parametrize("form", [OPENVINO, ONNXRUNTIME])
def test_two_products_of_the_largest_values_fit_16_bits(form: object) -> None:
    """What x86 without VNNI adds in one step."""
    assert form in {OPENVINO, ONNXRUNTIME}
    assert CPU_WEIGHT_QMAX == OPENVINO.weight_qmax == ONNXRUNTIME.weight_qmax
    assert 2 * 255 * CPU_WEIGHT_QMAX < 2**15
    assert 2 * 255 * (CPU_WEIGHT_QMAX + 2) > 2**15  # and hardly a level is given away
