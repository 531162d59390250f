"""Frames that a model was calibrated on say nothing about it; and ranges from 100 similar frames fit no other scene."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vidseg.calibration.frame_filter import NEAR_DUPLICATE, distances
from vidseg.calibration.k_center import farthest_points
from vidseg.calibration.selection import FrameFeatures, SelectionOptions, select
from vidseg.runtime.errors import UsageError

seeds = st.integers(0, 2**32 - 1)
options = st.builds(
    SelectionOptions,
    calibration=st.integers(1, 120),
    verification=st.integers(0, 70),
    min_calibration=st.just(1),
    min_verification=st.just(1),
)


def features_of(count: int, seed: int = 0, coarse: bool = False) -> list[FrameFeatures]:
    """Random ones; coarse values are often equal."""
    rng = np.random.default_rng(seed)
    values = rng.random((count, 24))
    table = (np.floor(values * 3) / 30 if coarse else values).astype(np.float32)
    return [FrameFeatures(row[:8], row[8:16], row[16:] * 0.02) for row in table]


def thumbnails_of(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 24, 32), dtype=np.uint8)


@given(st.integers(0, 700), options, seeds)
@settings(deadline=None)
def test_verification_frames_are_apart_from_calibration_frames(count: int, wanted: SelectionOptions, seed: int) -> None:
    chosen = select(features_of(count, seed, coarse=True), thumbnails_of(count), wanted)
    for rows, most in ((chosen.calibration, wanted.calibration), (chosen.verification, wanted.verification)):
        assert list(rows) == sorted(set(rows))
        assert len(rows) <= most
        assert all(0 <= row < count for row in rows)
    gaps = np.abs(np.subtract.outer(chosen.calibration, chosen.verification))
    assert not gaps.size or gaps.min() > chosen.gap > 0


@given(st.integers(20, 700), options)
@settings(deadline=None)
def test_each_set_gets_its_part_where_few_are_there(count: int, wanted: SelectionOptions) -> None:
    chosen = select(features_of(count), thumbnails_of(count), wanted)
    assert len(chosen.calibration) >= min(wanted.calibration, count // 4)
    assert len(chosen.verification) >= min(wanted.verification, count // 4)


def test_both_sets_see_the_whole_source() -> None:
    chosen = select(features_of(600), thumbnails_of(600), SelectionOptions())
    assert (len(chosen.calibration), len(chosen.verification)) == (100, 64)
    assert chosen.gap == 6
    for rows in (chosen.calibration, chosen.verification):
        assert np.histogram(rows, 6, (0, 600))[0].min() >= 5


@given(st.integers(1, 200), options, seeds)
@settings(deadline=None)
def test_the_order_of_tensors_and_classes_does_not_matter(count: int, wanted: SelectionOptions, seed: int) -> None:
    features = features_of(count, seed, coarse=True)
    rng = np.random.default_rng(seed)
    tensors, classes = rng.permutation(8), rng.permutation(8)
    shuffled = [FrameFeatures(one.vector, one.extremes[tensors], one.class_shares[classes]) for one in features]
    expected = select(features, thumbnails_of(count), wanted)
    assert select(features, thumbnails_of(count), wanted) == expected
    assert select(shuffled, thumbnails_of(count), wanted) == expected


def test_frames_that_set_the_most_extremes_are_calibrated_on() -> None:
    features = features_of(60)
    features[17].extremes[:3] = 9
    features[33].extremes[3:5] = 8
    for number in (5, 6, 7):
        features[number].extremes[number] = 7
    chosen = select(features, thumbnails_of(60), SelectionOptions(8, verification=0))
    assert {17, 33} <= set(chosen.calibration)


def test_a_frame_with_a_rare_class_is_calibrated_on() -> None:
    features = features_of(60)
    for one in features:
        one.class_shares[:2] = 0
    features[21].class_shares[0] = 0.001
    features[22].class_shares[0] = 0.002
    features[41].class_shares[1] = 0.1
    chosen = select(features, thumbnails_of(60), SelectionOptions(8, verification=0))
    assert {22, 41} <= set(chosen.calibration)


def test_single_tensors_leave_room_for_diversity() -> None:
    """A model with hundreds of tensors has as many frames that set an extreme somewhere."""
    vectors = np.zeros((200, 1), np.float32)
    vectors[100:] = np.arange(100)[:, None]
    extremes = np.eye(200, 100, dtype=np.float32)
    features = [FrameFeatures(*row, np.zeros(2, np.float32)) for row in zip(vectors, extremes, strict=True)]
    chosen = select(features, thumbnails_of(200), SelectionOptions(40, verification=0))
    assert sum(row < 100 for row in chosen.calibration) == 10


def test_a_value_that_is_not_finite_does_not_decide() -> None:
    features = features_of(60)
    expected = select(features, thumbnails_of(60), SelectionOptions(20, 20))
    broken = [
        FrameFeatures(
            np.append(one.vector, np.float32(np.nan)), np.append(one.extremes, np.float32(np.inf)), one.class_shares
        )
        for one in features
    ]
    assert select(broken, thumbnails_of(60), SelectionOptions(20, 20)) == expected


def test_equal_frames_go_to_the_earliest() -> None:
    same = FrameFeatures(np.ones(3, np.float32), np.ones(3, np.float32), np.ones(3, np.float32))
    chosen = select([same] * 30, thumbnails_of(30), SelectionOptions(8, verification=0))
    assert chosen.calibration == tuple(range(8))


def test_what_the_result_is_judged_on_is_not_calibrated_on() -> None:
    thumbnails = thumbnails_of(30) // 2
    judged_on = thumbnails[[3, 11]] + 1
    chosen = select(features_of(30), thumbnails, SelectionOptions(30, verification=0), judged_on)
    assert set(chosen.calibration) == set(range(30)) - {3, 11}


def test_a_scene_that_comes_again_is_not_verified_with() -> None:
    thumbnails = np.concatenate([thumbnails_of(50)] * 2)
    chosen = select(features_of(100), thumbnails, SelectionOptions())
    calibrated_on = thumbnails[list(chosen.calibration)]
    assert chosen.verification
    for row in chosen.verification:
        assert distances(calibrated_on, thumbnails[row]).min() >= NEAR_DUPLICATE


@pytest.mark.parametrize("wanted", [(7, 64), (100, 7), (0, 0), (100, -1)])
def test_a_number_that_makes_no_sense_is_refused(wanted: tuple[int, int]) -> None:
    with pytest.raises(UsageError):
        SelectionOptions(*wanted)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 3), seeds)
@settings(deadline=None)
def test_no_point_is_more_than_twice_as_far_as_it_has_to_be(count: int, wanted: int, given_: int, seed: int) -> None:
    """Gonzalez' bound, against every possible choice; so an evenly spread one is not better by more than that."""
    assume(given_ <= wanted <= count)
    points = np.random.default_rng(seed).normal(size=(count, 2))
    chosen = farthest_points(points, wanted, range(given_))
    assert chosen[:given_] == list(range(given_))
    assert len(set(chosen)) == len(chosen) == wanted
    others = combinations(range(given_, count), wanted - given_)
    best = min(_radius(points, [*range(given_), *rows]) for rows in others)
    assert _radius(points, chosen) <= 2 * best + 1e-9


@given(st.integers(3, 40), seeds)
@settings(deadline=None)
def test_the_farthest_points_do_not_depend_on_their_order(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(count, 3))
    order = rng.permutation(count)
    chosen = farthest_points(points, count // 2)
    assert [int(order[row]) for row in farthest_points(points[order], count // 2)] == chosen


def _radius(points: NDArray[np.float64], chosen: list[int]) -> float:
    return float(np.linalg.norm(points[:, None] - points[None, chosen], axis=2).min(axis=1).max())
