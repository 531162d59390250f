"""Two classes that a colour-blind person cannot tell apart are one class for that person."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidseg.export.label_sets import LABEL_SETS
from vidseg.runtime.palette import color_distance, color_from_hex, distinct_colors

Color = tuple[int, int, int]
colors = st.tuples(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))


@pytest.mark.parametrize(("count", "least"), [(2, 90), (7, 28), (12, 22), (19, 15), (40, 10), (150, 3)])
def test_generated_colors_stay_apart_for_every_kind_of_eye(count: int, least: float) -> None:
    generated = distinct_colors([None] * count)
    assert len(set(generated)) == count
    assert min(color_distance(*pair) for pair in itertools.combinations(generated, 2)) >= least
    assert generated == distinct_colors([None] * count)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.none() | colors, min_size=1, max_size=20))
def test_given_colors_are_kept(given_colors: list[Color | None]) -> None:
    filled = distinct_colors(given_colors)
    assert len(filled) == len(given_colors)
    assert all(old in (None, new) for old, new in zip(given_colors, filled, strict=True))


@settings(deadline=None, max_examples=20)
@given(colors, colors)
def test_the_distance_is_at_most_that_of_the_usual_eye(first: Color, second: Color) -> None:
    lab = cv2.cvtColor(np.array([[first, second]], np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    assert color_distance(first, second) <= np.linalg.norm(lab[0] - lab[1]) + 0.1
    assert color_distance(first, second) == color_distance(second, first)


def test_red_and_green_are_near_for_some() -> None:
    red, green = (200, 60, 30), (110, 130, 20)
    usual = np.linalg.norm(np.subtract(*cv2.cvtColor(np.array([[red, green]], np.float32) / 255, cv2.COLOR_RGB2LAB)[0]))
    assert color_distance(red, green) < usual / 2


def test_known_sets_have_their_published_colors() -> None:
    assert color_from_hex("804080") == (128, 64, 128)
    by_name = {name: {spec.name: spec.color_rgb for spec in classes} for name, classes in LABEL_SETS.items()}
    for name, count in {"ade20k": 150, "cityscapes": 19, "camvid": 11, "voc": 21}.items():
        assert len(by_name[name]) == count
    assert by_name["ade20k"]["wall"] == (120, 120, 120)
    assert by_name["ade20k"]["flag"] == (92, 0, 255)
    assert by_name["ade20k"]["car"] == (0, 102, 200)
    assert by_name["cityscapes"]["road"] == (128, 64, 128)
    assert by_name["voc"]["person"] == (192, 128, 128)
