"""The overlay is what a person believes: a class in another's colour, or beside its object, is believed as well."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidseg.runtime.errors import UsageError
from vidseg.runtime.frame import ClassMap, Frame, Image, Segmentation
from vidseg.runtime.geometry import Fit, placement_of
from vidseg.runtime.manifest import ClassSpec
from vidseg.runtime.overlay import Overlay, OverlayStyle, outline_px

RNG = np.random.default_rng(3)
CLASSES = tuple(
    ClassSpec(name=f"class {index}", color_rgb=(int(red), int(green), int(blue)))
    for index, (red, green, blue) in enumerate(RNG.integers(0, 256, (30, 3)))
)


def _segmentation(image: Image, class_map: ClassMap, fit: Fit = "stretch") -> Segmentation:
    grid_wh = (class_map.shape[1], class_map.shape[0])
    placement = placement_of((image.shape[1], image.shape[0]), grid_wh, fit)
    visible = placement.without_padding(class_map.copy())
    return Segmentation(Frame("s", 0, 0, 0, 0, "pts", image), visible, placement.grid_from_frame(grid_wh), 0.0)


def _random(size_wh: tuple[int, int], grid_wh: tuple[int, int], fit: Fit, seed: int) -> Segmentation:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
    class_map = rng.choice([0, 1, 2, 29, 30, 254, 255], (grid_wh[1], grid_wh[0])).astype(np.uint8)
    return _segmentation(image, class_map, fit)


def slow_blend(segmentation: Segmentation, classes: tuple[ClassSpec, ...], alpha: float) -> Image:
    """The definition, pixel by pixel, in whole numbers."""
    share = round(alpha * 256)
    picture: Image = segmentation.frame.image.copy()
    class_map = segmentation.at_frame_size()
    for y, x in np.ndindex(*class_map.shape):
        if class_map[y, x] < len(classes):
            color_bgr = classes[class_map[y, x]].color_rgb[::-1]
            for channel in range(3):
                level = int(picture[y, x, channel])
                picture[y, x, channel] = (level * (256 - share) + color_bgr[channel] * share + 128) >> 8
    return picture


sizes = st.tuples(st.integers(1, 24), st.integers(1, 24))
fits = st.sampled_from(["stretch", "letterbox", "crop"])


@given(sizes, sizes, fits, st.floats(0, 1), st.integers(0, 999))
def test_the_picture_is_that_of_the_definition_byte_for_byte(
    size_wh: tuple[int, int], grid_wh: tuple[int, int], fit: Fit, alpha: float, seed: int
) -> None:
    segmentation = _random(size_wh, grid_wh, fit, seed)
    overlay = Overlay(CLASSES, OverlayStyle(alpha=alpha, legend=False))
    assert np.array_equal(overlay.draw(segmentation), slow_blend(segmentation, CLASSES, alpha))


def test_every_level_and_color_is_rounded_as_stated_at_every_alpha() -> None:
    levels = np.arange(256, dtype=np.uint8)
    classes = tuple(ClassSpec(name=str(level), color_rgb=(level, level, level)) for level in range(255))
    image = np.ascontiguousarray(np.broadcast_to(levels[:, None, None], (256, 255, 3)))
    segmentation = _segmentation(image, np.tile(levels[:255], (256, 1)))
    for share in range(257):
        expected = (levels[:, None].astype(int) * (256 - share) + levels[None, :255].astype(int) * share + 128) >> 8
        picture = Overlay(classes, OverlayStyle(alpha=share / 256, legend=False)).draw(segmentation)
        assert np.array_equal(picture, np.dstack([expected] * 3))


def test_the_ends_of_alpha_are_the_frame_and_the_color() -> None:
    segmentation = _segmentation(np.full((4, 4, 3), 77, np.uint8), np.ones((2, 2), np.uint8))
    assert (Overlay(CLASSES, OverlayStyle(alpha=0, legend=False)).draw(segmentation) == 77).all()
    color_bgr = CLASSES[1].color_rgb[::-1]
    assert (Overlay(CLASSES, OverlayStyle(alpha=1, legend=False)).draw(segmentation) == color_bgr).all()


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_an_alpha_that_is_no_share_is_refused(alpha: float) -> None:
    with pytest.raises(UsageError, match="alpha"):
        Overlay(CLASSES, OverlayStyle(alpha=alpha))


def test_the_frame_is_left_alone_and_the_picture_is_new() -> None:
    segmentation = _random((40, 30), (20, 15), "stretch", 0)
    before = segmentation.frame.image.copy()
    overlay = Overlay(CLASSES)
    first, second = (overlay.draw(segmentation, ["fps 30"]) for _ in range(2))
    assert np.array_equal(segmentation.frame.image, before)
    assert np.array_equal(first, second)
    assert not np.shares_memory(first, second)
    assert first.flags.writeable


def _shows(picture: Image, spec: ClassSpec) -> bool:
    return bool((picture == np.array(spec.color_rgb[::-1])).all(2).any())


def test_the_legend_shows_the_colors_of_the_classes_that_are_there() -> None:
    class_map = np.full((9, 9), 4, np.uint8)
    class_map[5, 5] = 7
    segmentation = _segmentation(np.full((480, 640, 3), 128, np.uint8), class_map)
    picture = Overlay(CLASSES, OverlayStyle(alpha=0.5)).draw(segmentation)
    assert [index for index, spec in enumerate(CLASSES) if _shows(picture, spec)] == [4, 7]
    changed = (picture != Overlay(CLASSES, OverlayStyle(alpha=0.5, legend=False)).draw(segmentation)).any(2)
    rows, columns = np.nonzero(changed)
    assert rows.min() > 240
    assert rows.max() < 480 - 480 // 16  # time codes stand below
    assert columns.min() == 0
    assert columns.max() < 320


def test_lines_are_written_in_the_upper_left_corner() -> None:
    segmentation = _segmentation(np.full((480, 640, 3), 255, np.uint8), np.full((9, 9), 255, np.uint8))
    picture = Overlay(CLASSES).draw(segmentation, ["fps 29.9", "age 31 ms"])
    rows, columns = np.nonzero((picture != 255).any(2))
    assert (rows.min(), columns.min()) == (0, 0)
    assert 20 < rows.max() < 60
    assert 60 < columns.max() < 200
    corner = picture[: rows.max(), : columns.max()]
    assert corner.min() < 100  # dark behind
    assert corner.max() == 255  # letters


@given(st.tuples(st.integers(1, 200), st.integers(1, 200)), st.integers(0, 30), st.booleans())
def test_captions_fit_into_any_picture(size_wh: tuple[int, int], class_count: int, hud: bool) -> None:
    names = [f"{'very ' * (index % 5)}long name {index}" for index in range(class_count)]
    classes = tuple(ClassSpec(name=name, color_rgb=(1, 2, 3)) for name in names)
    image = np.full((size_wh[1], size_wh[0], 3), 99, np.uint8)
    segmentation = _segmentation(image, np.arange(30, dtype=np.uint8).reshape(5, 6))
    lines = ["fps 29.9   age 31 ms, p99 44 ms", "", "dropped 3 (replaced)"] if hud else []
    assert Overlay(classes).draw(segmentation, lines).shape == image.shape


@given(sizes, sizes, fits, st.integers(0, 999))
def test_an_outline_is_every_visible_pixel_near_another_class(
    size_wh: tuple[int, int], grid_wh: tuple[int, int], fit: Fit, seed: int
) -> None:
    segmentation = _random(size_wh, grid_wh, fit, seed)
    hidden = CLASSES[1].name
    picture = Overlay(CLASSES, OverlayStyle(alpha=0, legend=False, outline=True, hidden=(hidden,))).draw(segmentation)
    expected = segmentation.frame.image.copy()
    class_map = segmentation.at_frame_size().copy()
    class_map[class_map == 1] = 255
    reach = outline_px(class_map.shape)
    for y, x in np.ndindex(*class_map.shape):
        around = class_map[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
        if class_map[y, x] < len(CLASSES) and (around != class_map[y, x]).any():
            expected[y, x] = CLASSES[class_map[y, x]].color_rgb[::-1]
    assert np.array_equal(picture, expected)


def test_outlines_are_wider_in_large_pictures() -> None:
    assert [outline_px((height, 4 * height)) for height in (1, 360, 719, 721, 1080, 2160)] == [1, 1, 1, 2, 2, 4]


@given(sizes, sizes, fits, st.integers(0, 999))
def test_a_mask_is_the_colors_alone_and_a_pair_keeps_the_frame(
    size_wh: tuple[int, int], grid_wh: tuple[int, int], fit: Fit, seed: int
) -> None:
    segmentation = _random(size_wh, grid_wh, fit, seed)
    mask = Overlay(CLASSES, OverlayStyle(legend=False, view="mask")).draw(segmentation)
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(CLASSES)] = [spec.color_rgb[::-1] for spec in CLASSES]
    assert np.array_equal(mask, palette[segmentation.at_frame_size()])
    pair = Overlay(CLASSES, OverlayStyle(legend=False, view="side-by-side")).draw(segmentation)
    left, right = np.hsplit(pair, 2)
    assert np.array_equal(left, segmentation.frame.image)
    assert np.array_equal(right, Overlay(CLASSES, OverlayStyle(legend=False)).draw(segmentation))


def test_a_hidden_class_leaves_the_frame_and_the_legend() -> None:
    segmentation = _segmentation(np.full((200, 300, 3), 90, np.uint8), np.repeat([[0, 1]], 2, axis=0).astype(np.uint8))
    picture = Overlay(CLASSES, OverlayStyle(hidden=("class 0",))).draw(segmentation)
    assert (picture[:60, :140] == 90).all()
    assert (picture[:60, 160:] != 90).any()
    assert not (picture == CLASSES[0].color_rgb[::-1]).all(axis=2).any()
    with pytest.raises(UsageError, match="no class 'car' to hide"):
        Overlay(CLASSES, OverlayStyle(hidden=("car",)))


def test_distinct_colors_replace_the_bundles() -> None:
    classes = tuple(ClassSpec(name=str(number), color_rgb=(200, 0, 0)) for number in range(3))
    segmentation = _segmentation(np.zeros((3, 3, 3), np.uint8), np.arange(3, dtype=np.uint8)[None])
    style = OverlayStyle(alpha=1, legend=False, colors="distinct")
    row = Overlay(classes, style).draw(segmentation)[0]
    assert len({tuple(pixel) for pixel in row.tolist()}) == 3
