"""A fast way to class maps is worth nothing if a single pixel differs from the plain one."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidseg.runtime.upsampling import Alignment, Scores, SparseUpsampler, dense_class_map

ALIGNMENTS: list[Alignment] = ["half_pixel", "align_corners", "asymmetric"]


def _scores(seed: int, classes: int, grid_wh: tuple[int, int], smoothness: float) -> Scores:
    """Random scores; the smoother, the larger the regions of one class."""
    shape = (classes, grid_wh[1], grid_wh[0])
    scores = np.random.default_rng(seed).standard_normal(shape, np.float32)
    if smoothness:
        scores = np.stack([cv2.GaussianBlur(plane, (0, 0), smoothness) for plane in scores])
    return scores


@settings(max_examples=150, deadline=None)
@given(
    random=st.tuples(st.integers(0, 10**6), st.integers(1, 9), st.sampled_from([0.0, 1.0, 3.0])),
    grid_wh=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    size_wh=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    alignment=st.sampled_from(ALIGNMENTS),
)
def test_every_pixel_is_that_of_the_plain_form(
    random: tuple[int, int, float], grid_wh: tuple[int, int], size_wh: tuple[int, int], alignment: Alignment
) -> None:
    seed, classes, smoothness = random
    scores = _scores(seed, classes, grid_wh, smoothness)
    found = SparseUpsampler(grid_wh, size_wh, alignment).class_map(scores)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert np.array_equal(found, dense_class_map(scores, size_wh, alignment))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), stride=st.sampled_from([1, 2, 4, 8]), levels=st.integers(1, 3))
def test_of_equal_scores_the_first_class_wins(seed: int, stride: int, levels: int) -> None:
    """Scores of few levels, whose sums are exact in float32: ties everywhere."""
    scores = np.random.default_rng(seed).integers(0, levels + 1, (4, 6, 7)).astype(np.float32)
    size_wh = (7 * stride, 6 * stride)
    assert np.array_equal(SparseUpsampler((7, 6), size_wh).class_map(scores), dense_class_map(scores, size_wh))


def test_a_class_that_wins_at_no_corner_still_wins_between_them() -> None:
    scores = np.array([[[10.0, 0.0]], [[0.0, 10.0]], [[9.0, 9.0]]], np.float32)
    found = SparseUpsampler((2, 1), (16, 1)).class_map(scores)
    assert sorted(set(found.ravel().tolist())) == [0, 1, 2]


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_it_agrees_with_opencv(stride: int) -> None:
    scores = _scores(0, 19, (40, 30), 2.0)
    size_wh = (40 * stride, 30 * stride)
    planes = np.stack([cv2.resize(plane, size_wh, interpolation=cv2.INTER_LINEAR) for plane in scores])
    first, second = np.sort(planes, axis=0)[:-3:-1]
    clear = first - second > 1e-5
    assert clear.mean() > 0.99
    assert np.array_equal(SparseUpsampler((40, 30), size_wh).class_map(scores)[clear], planes.argmax(axis=0)[clear])


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_it_agrees_with_onnx_runtime(alignment: Alignment) -> None:
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    grid_wh, size_wh = (33, 21), (97, 64)
    sizes = onnx.numpy_helper.from_array(np.array([1, 5, size_wh[1], size_wh[0]], np.int64), "sizes")
    node = helper.make_node(
        "Resize", ["x", "", "", "sizes"], ["y"], mode="linear", coordinate_transformation_mode=alignment
    )
    graph = helper.make_graph(
        [node],
        "resize",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 5, grid_wh[1], grid_wh[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [sizes],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    scores = _scores(1, 5, grid_wh, 1.5)
    (planes,) = session.run(None, {"x": scores[None]})
    first, second = np.sort(planes[0], axis=0)[:-3:-1]
    clear = first - second > 1e-5
    assert clear.mean() > 0.99
    found = SparseUpsampler(grid_wh, size_wh, alignment).class_map(scores)
    assert np.array_equal(found[clear], planes[0].argmax(axis=0)[clear])


def test_a_plane_is_upsampled_as_opencv_does() -> None:
    plane = _scores(2, 1, (20, 15), 1.0)[0]
    wanted = cv2.resize(plane, (160, 120), interpolation=cv2.INTER_LINEAR)
    assert np.allclose(SparseUpsampler((20, 15), (160, 120)).plane(plane), wanted, atol=1e-5)
