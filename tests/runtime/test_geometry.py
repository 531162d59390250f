"""A wrong placement puts every mask beside its object."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidseg.runtime.frame import UNKNOWN, Frame, Segmentation
from vidseg.runtime.geometry import PADDING_VALUE, Fit, placement_of

sizes = st.tuples(st.integers(8, 300), st.integers(8, 300))
fits = st.sampled_from(["stretch", "letterbox", "crop"])


@given(sizes, sizes, fits)
def test_the_input_always_has_the_models_size(frame_wh: tuple[int, int], input_wh: tuple[int, int], fit: Fit) -> None:
    image = np.zeros((frame_wh[1], frame_wh[0], 3), np.uint8)
    placed = placement_of(frame_wh, input_wh, fit).input_from_frame(image)
    assert placed.shape == (input_wh[1], input_wh[0], 3)
    assert placed.flags.c_contiguous


@given(sizes, sizes, fits)
def test_the_affine_takes_a_frame_onto_the_grid(frame_wh: tuple[int, int], input_wh: tuple[int, int], fit: Fit) -> None:
    placement = placement_of(frame_wh, input_wh, fit)
    grid = placement.without_padding(np.zeros((input_wh[1], input_wh[0]), np.uint8))
    affine = placement.grid_from_frame(input_wh)
    for axis, size in ((0, grid.shape[1]), (1, grid.shape[0])):
        first = affine[axis, axis] * -0.5 + affine[axis, 2]
        last = affine[axis, axis] * (frame_wh[axis] - 0.5) + affine[axis, 2]
        if fit == "crop":  # the frame reaches beyond the grid, or exactly to it
            assert first <= -0.5 + 1e-9
            assert last >= size - 0.5 - 1e-9
        else:  # the edges of the frame are the edges of the grid
            assert first == pytest.approx(-0.5)
            assert last == pytest.approx(size - 0.5)


def test_letterbox_pads_and_the_padding_is_cropped_from_the_result() -> None:
    placement = placement_of((200, 100), (100, 100), "letterbox")
    placed = placement.input_from_frame(np.full((100, 200, 3), 7, np.uint8))
    assert (placed[:25] == PADDING_VALUE).all()
    assert (placed[25:75] == 7).all()
    assert (placed[75:] == PADDING_VALUE).all()
    assert placement.without_padding(np.zeros((100, 100), np.uint8)).shape == (50, 100)


def test_crop_leaves_what_the_model_did_not_see_unknown() -> None:
    placement = placement_of((200, 100), (50, 50), "crop")
    frame = Frame("s", 0, 0, 0, 0, "pts", np.zeros((100, 200, 3), np.uint8))
    class_map = placement.without_padding(np.full((50, 50), 3, np.uint8))
    at_frame_size = Segmentation(frame, class_map, placement.grid_from_frame((50, 50)), 0.0).at_frame_size()
    assert (at_frame_size[:, 50:150] == 3).all()
    assert (at_frame_size[:, :50] == UNKNOWN).all()
    assert (at_frame_size[:, 150:] == UNKNOWN).all()


@given(st.integers(1, 6), st.integers(1, 6))
def test_a_whole_number_scale_repeats_each_class_exactly(factor_x: int, factor_y: int) -> None:
    class_map = np.arange(12, dtype=np.uint8).reshape(3, 4)
    frame_wh = (4 * factor_x, 3 * factor_y)
    frame = Frame("s", 0, 0, 0, 0, "pts", np.zeros((frame_wh[1], frame_wh[0], 3), np.uint8))
    affine = placement_of(frame_wh, (4, 3), "stretch").grid_from_frame((4, 3))
    expected = np.kron(class_map, np.ones((factor_y, factor_x), np.uint8))
    assert np.array_equal(Segmentation(frame, class_map.copy(), affine, 0.0).at_frame_size(), expected)
