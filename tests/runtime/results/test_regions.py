"""A robot that is told a wrong place or a wrong size drives there."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from vidseg.runtime.clock import SystemClock
from vidseg.runtime.decoding import Prediction
from vidseg.runtime.errors import ConfigurationError
from vidseg.runtime.frame import UNKNOWN, Frame, Segmentation
from vidseg.runtime.geometry import Fit, placement_of
from vidseg.runtime.manifest import ClassSpec
from vidseg.runtime.results.regions import regions_of, shares_of
from vidseg.runtime.results.zones import Zone
from vidseg.runtime.segmenter import segmentation_of

CLASSES = tuple(ClassSpec(name=name, color_rgb=(0, 0, 0)) for name in ("road", "car", "person"))


def result(class_map: NDArray[np.uint8], frame_wh: tuple[int, int] | None = None, fit: Fit = "stretch") -> Segmentation:
    """As the pipeline makes it, of a model whose input is as large as the class map."""
    input_wh = (class_map.shape[1], class_map.shape[0])
    width, height = frame_wh or input_wh
    frame = Frame("camera", 0, 0, 0, 0, "wall", np.zeros((height, width, 3), np.uint8))
    return segmentation_of(frame, placement_of((width, height), input_wh, fit), Prediction(class_map), SystemClock())


MAPS = st.integers(0, 10_000).map(
    lambda seed: cv2.resize(
        np.random.default_rng(seed).choice(np.array([0, 1, 2, UNKNOWN], np.uint8), (6, 8)), (32, 24),
        interpolation=cv2.INTER_NEAREST,
    ).astype(np.uint8)
)  # fmt: skip


@given(MAPS)
def test_the_regions_of_a_class_are_all_of_it_and_lie_in_their_boxes(class_map: NDArray[np.uint8]) -> None:
    found = regions_of(result(class_map), CLASSES)
    shares = shares_of(result(class_map), CLASSES)
    for number, spec in enumerate(CLASSES):
        mine = [region for region in found if region.class_name == spec.name]
        assert sum(region.area_px for region in mine) == (class_map == number).sum()
        assert shares[spec.name] == pytest.approx((class_map == number).mean())
        drawn = np.zeros_like(class_map)
        for region in mine:
            x, y, width, height = region.box_xywh
            assert (class_map[int(y) : int(y + height), int(x) : int(x + width)] == number).any()
            assert region.area_px <= width * height
            cv2.fillPoly(drawn, [np.array(region.polygon_xy).round().astype(np.int32)], 1)
        missed = (class_map == number) & (cv2.dilate(drawn, np.ones((5, 5), np.uint8)) == 0)
        assert not missed.any(), "a polygon keeps to its region's border"
    assert [region.area_px for region in found] == sorted((region.area_px for region in found), reverse=True)


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
@pytest.mark.parametrize("frame_wh", [(128, 96), (200, 96), (64, 100)])
def test_places_and_sizes_are_the_frame_s_however_it_was_laid_on_the_input(fit: Fit, frame_wh: tuple[int, int]) -> None:
    """A block is drawn into the frame, and the model is right."""
    frame = np.zeros((*frame_wh[::-1], 3), np.uint8)
    box = (frame_wh[0] // 4, frame_wh[1] // 4, frame_wh[0] // 2, frame_wh[1] // 2)
    frame[box[1] : box[1] + box[3], box[0] : box[0] + box[2]] = 255
    fitted = placement_of(frame_wh, (64, 48), fit).input_from_frame(frame)
    (region,) = regions_of(result((fitted[..., 0] == 255).astype(np.uint8), frame_wh, fit), CLASSES, wanted={"car"})
    cell = 2 * max(frame_wh[0] / 64, frame_wh[1] / 48, 1)
    whole = [max(box[0], 0), max(box[1], 0), box[2], box[3]]
    if fit != "crop":
        assert np.allclose(region.box_xywh, whole, atol=cell)
        assert region.area_px == pytest.approx(box[2] * box[3], rel=0.2)
    x, y, width, height = region.box_xywh
    assert -cell <= x - whole[0] < frame_wh[0]
    assert x + width <= whole[0] + whole[2] + cell
    assert y + height <= whole[1] + whole[3] + cell


def test_a_region_in_the_hole_of_another_one_is_a_region_too() -> None:
    class_map = np.zeros((20, 20), np.uint8)
    class_map[2:18, 2:18] = 1
    class_map[5:15, 5:15] = 0
    class_map[8:12, 8:12] = 1
    cars = regions_of(result(class_map), CLASSES, wanted={"car"})
    assert [region.area_px for region in cars] == [16 * 16 - 100, 16]
    assert [region.box_xywh for region in cars] == [(2, 2, 16, 16), (8, 8, 4, 4)]
    assert regions_of(result(class_map), CLASSES, wanted={"car"}, min_area_px=17) == cars[:1]
    assert regions_of(result(class_map), CLASSES, wanted={"person"}) == []


@given(MAPS, st.sampled_from(["stretch", "letterbox", "crop"]))
def test_a_zone_of_the_whole_picture_has_the_shares_of_the_picture(class_map: NDArray[np.uint8], fit: Fit) -> None:
    segmentation = result(class_map, (64, 48), fit)
    whole = Zone("all", ((0, 0), (1, 0), (1, 1), (0, 1)))
    assert whole.shares(segmentation, CLASSES) == pytest.approx(shares_of(segmentation, CLASSES))


def test_zones_beside_each_other_share_the_picture() -> None:
    class_map = np.zeros((40, 40), np.uint8)
    class_map[:, 20:] = 1
    left = Zone("left", ((0, 0), (0.49, 0), (0.49, 1), (0, 1)))
    right = Zone("right", ((0.51, 0), (1, 0), (1, 1), (0.51, 1)))
    for size in ((40, 40), (640, 480)):
        segmentation = result(class_map, size)
        assert left.shares(segmentation, CLASSES) == {"road": 1, "car": 0, "person": 0}
        assert right.shares(segmentation, CLASSES) == {"road": 0, "car": 1, "person": 0}


@pytest.mark.parametrize(
    "polygon",
    [(), ((0, 0), (1, 1)), ((0, 0), (1, 0), (1, 1.1)), ((0, 0), (0.5, 0.5), (1, 1)), ((0, 0), (0, 0), (0, 0))],
)
def test_what_is_no_zone_is_refused(polygon: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ConfigurationError, match="zone 'z'"):
        Zone("z", polygon)
