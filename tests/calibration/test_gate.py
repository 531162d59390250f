"""A gate that is too kind ships masks that are wrong; one that is too strict refuses good INT8."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidseg.calibration.gate import (
    MIN_CLASS_SHARE,
    Budget,
    Comparison,
    LabelOptions,
    Reference,
    compare,
    faults,
    worst_class,
)
from vidseg.runtime.engines.fake import FakeEngine
from vidseg.runtime.errors import UsageError
from vidseg.runtime.frame import UNKNOWN, ClassMap, Image
from vidseg.runtime.segmenter import Segmenter

SIZE_WH = (20, 10)
CLASSES = 4
LABELS = LabelOptions(CLASSES, UNKNOWN, tuple(range(256)))
seeds = st.integers(0, 2**32 - 1)


def picture_of(class_map: ClassMap) -> Image:
    """Which the fake engine gives these classes."""
    image = np.zeros((*class_map.shape, 3), np.uint8)
    image[..., 0] = class_map << 5
    return image


def class_maps(seed: int, count: int = 3) -> list[ClassMap]:
    rng = np.random.default_rng(seed)
    return list(rng.integers(0, CLASSES, (count, SIZE_WH[1], SIZE_WH[0]), dtype=np.uint8))


def compared(
    variant: Sequence[ClassMap],
    reference: Sequence[ClassMap],
    sure: Sequence[np.ndarray[tuple[int, ...], np.dtype[np.bool_]]] | None = None,
    labels: Sequence[ClassMap] | None = None,
    options: LabelOptions | None = None,
) -> Comparison:
    """The variant's answers come from an engine; what float says and the labels are as they are given."""
    everywhere = [np.ones(class_map.shape, np.bool_) for class_map in reference]
    references = [
        Reference(picture_of(mine), theirs, certain, None if labels is None else labels[number])
        for number, (mine, theirs, certain) in enumerate(zip(variant, reference, sure or everywhere, strict=True))
    ]
    with Segmenter(FakeEngine(SIZE_WH)) as segment:
        return compare(segment, references, options or (LABELS if labels is not None else None))


def scored(*iou: float, shares: Sequence[float] | None = None) -> Comparison:
    """A comparison with these IoUs."""
    even = np.full(len(iou), 1 / len(iou)) if shares is None else np.array(shares)
    return Comparison(3, 1.0, 0.0, np.zeros(3), np.array(iou), 1.0, even)


@given(seeds, seeds)
def test_only_pixels_that_float_is_sure_of_count(seed: int, other: int) -> None:
    reference, variant = class_maps(seed), class_maps(other)
    sure = [rng > 0.5 for rng in np.random.default_rng(seed).random((3, SIZE_WH[1], SIZE_WH[0]))]
    found = compared(variant, reference, sure)
    different = np.stack(variant) != np.stack(reference)
    assert found.frames == 3
    assert found.agreement == pytest.approx(1 - different.mean())
    assert found.disagreement == pytest.approx((different & np.stack(sure)).mean())
    assert found.frame_disagreement == pytest.approx((different & np.stack(sure)).mean(axis=(1, 2)))
    assert found.iou is None
    assert found.mean_iou is None


def test_the_worst_frames_are_those_that_a_person_should_see() -> None:
    found = Comparison(5, 1.0, 0.1, np.array([0.1, 0.3, 0.0, 0.3, 0.2]))
    assert found.worst_frames(3) == [1, 3, 4]
    assert found.worst_frames(9) == [1, 3, 4, 0, 2]


@given(seeds, seeds)
def test_a_variant_that_differs_at_unsure_borders_only_passes(seed: int, other: int) -> None:
    nowhere = [np.zeros(SIZE_WH[::-1], np.bool_)] * 3
    found = compared(class_maps(other), class_maps(seed), nowhere)
    assert found.disagreement == 0
    assert faults(found, found, Budget(max_disagreement=0)) == []


def test_too_many_sure_pixels_with_another_class_are_a_fault() -> None:
    reference = [np.zeros(SIZE_WH[::-1], np.uint8)]
    variant = [reference[0].copy()]
    variant[0][0, :2] = 1  # 2 of 200 pixels
    found = compared(variant, reference)
    assert faults(found, found, Budget(max_disagreement=1.0)) == []
    assert faults(found, found, Budget(max_disagreement=0.9)) == [
        "1.00 % of the pixels differ where float is sure, 0.9 % may"
    ]


def test_no_verification_frame_is_no_proof() -> None:
    nothing = Comparison(0, float("nan"), float("nan"), np.zeros(0))
    assert faults(nothing, nothing, Budget(max_disagreement=100)) != []


def test_labels_score_what_they_say_and_not_what_float_says() -> None:
    labels = class_maps(1)
    found = compared(labels, class_maps(2), labels=labels)
    assert found.mean_iou == 1
    assert found.boundary_f == 1
    assert found.class_shares == pytest.approx([np.mean(np.stack(labels) == number) for number in range(CLASSES)])
    assert faults(found, found, Budget(max_disagreement=0)) == []


def test_labels_of_another_numbering_are_compared_by_the_table() -> None:
    model, labels = [np.array([[0, 1], [2, 3]], np.uint8).repeat(5, 0).repeat(10, 1)], None
    labels = [np.array([9, 2, 0, 1], np.uint8)[model[0]]]
    table = (9, 2, 0, 1, *[UNKNOWN] * 252)
    found = compared(model, model, labels=labels, options=LabelOptions(3, 9, table))
    assert found.iou is not None
    assert found.iou.tolist() == [1, 1, 1]
    assert found.class_shares == pytest.approx([1 / 3] * 3)


def test_progress_is_told_of_each_frame() -> None:
    done: list[None] = []
    maps = class_maps(0)
    references = [Reference(picture_of(one), one, np.ones(one.shape, np.bool_)) for one in maps]
    compare(Segmenter(FakeEngine(SIZE_WH)), iter(references), None, lambda: done.append(None))
    assert len(done) == len(maps)


def test_a_fall_of_the_mean_and_of_the_worst_class_are_faults_with_their_names() -> None:
    before, after = scored(0.8, 0.6), scored(0.79, 0.5)
    budget = Budget(max_miou_drop=5.4, max_class_drop=9.9)
    assert faults(after, before, budget, ["road", "pole"]) == [
        "mean IoU falls by 5.50 points, 5.4 may",
        "IoU of pole falls by 10.00 points, 9.9 may",
    ]
    assert faults(after, before, budget)[1].startswith("IoU of class 1 falls")
    assert faults(after, before, Budget(max_miou_drop=5.6, max_class_drop=10.1)) == []


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.floats(0, 100), st.floats(0, 100))
def test_what_is_no_worse_than_float_passes_every_budget(iou: list[float], mean: float, worst: float) -> None:
    better = [min(1.0, value + 0.1) for value in iou]
    budget = Budget(max_miou_drop=mean, max_class_drop=worst)
    assert faults(scored(*iou), scored(*iou), budget) == []
    assert faults(scored(*better), scored(*iou), budget) == []


def test_a_class_of_a_few_pixels_is_not_the_worst() -> None:
    rare = MIN_CLASS_SHARE / 2
    before = scored(0.8, 0.6, 0.5, shares=[0.5, 0.5 - rare, rare])
    after = scored(0.79, 0.57, 0.0, shares=[0.5, 0.5 - rare, rare])
    worst, drop = worst_class(after, before)
    assert worst == 1
    assert drop == pytest.approx(3)


@pytest.mark.parametrize("before", [(0.8, 0.6, np.nan), (np.nan, np.nan, np.nan)])
def test_a_class_that_is_nowhere_is_not_the_worst(before: tuple[float, ...]) -> None:
    shares = [0.5, 0.5, 0.0] if before[0] == before[0] else [0.0, 0.0, 0.0]
    worst, drop = worst_class(scored(0.8, 0.5, np.nan, shares=shares), scored(*before, shares=shares))
    assert (worst, round(drop, 6)) == ((1, 10.0) if shares[0] else (None, 0.0))


def test_without_labels_there_is_no_worst_class() -> None:
    found = compared(class_maps(0), class_maps(0))
    assert worst_class(found, found) == (None, 0.0)


def test_a_class_that_no_label_has_neither_hides_a_loss_nor_makes_one() -> None:
    """Its IoU is 0 where one pixel is predicted, and none where there is no such pixel: a mean over other classes."""
    shares = [0.5, 0.5, 0.0]
    budget = Budget(max_miou_drop=0.5, max_class_drop=100)
    hidden = faults(scored(0.6, 0.6, np.nan, shares=shares), scored(0.8, 0.8, 0.0, shares=shares), budget)
    assert hidden == ["mean IoU falls by 20.00 points, 0.5 may"]
    assert faults(scored(0.8, 0.8, 0.0, shares=shares), scored(0.8, 0.8, np.nan, shares=shares), budget) == []


def test_the_mean_that_is_reported_is_the_one_that_is_judged() -> None:
    """One pixel of a class that no label has made a mean of 0.8 one of 0.5333, and the gate let it pass."""
    shares = [0.5, 0.5, 0.0]
    clean, strayed = scored(0.8, 0.8, np.nan, shares=shares), scored(0.8, 0.8, 0.0, shares=shares)
    assert clean.mean_iou == strayed.mean_iou == pytest.approx(0.8)
    labels = [np.zeros(SIZE_WH[::-1], np.uint8)]
    predicted = labels[0].copy()
    predicted[0, 0] = 1
    found = compared([predicted], labels, labels=labels)
    assert found.mean_iou == pytest.approx(1 - 1 / labels[0].size)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.sampled_from([0.0, 0.3])), min_size=1, max_size=6),
    st.floats(0, 100),
)
def test_the_gate_passes_whatever_the_report_says_is_within_the_budget(
    classes: list[tuple[float, float, float]], budget: float
) -> None:
    before, after, shares = zip(*classes, strict=True)
    reference, found = scored(*before, shares=shares), scored(*after, shares=shares)
    if reference.mean_iou is None or found.mean_iou is None:
        assert not any(shares)
        return
    lines = faults(found, reference, Budget(max_miou_drop=budget, max_class_drop=100))
    assert bool(lines) == ((reference.mean_iou - found.mean_iou) * 100 > budget)


@given(seeds, seeds, st.permutations(range(5)))
def test_the_order_of_frames_changes_nothing(seed: int, other: int, order: list[int]) -> None:
    variant, reference, labels = class_maps(seed, 5), class_maps(other, 5), class_maps(seed ^ other, 5)
    sure = list(np.random.default_rng(seed).random((5, SIZE_WH[1], SIZE_WH[0])) > 0.5)
    first = compared(variant, reference, sure, labels)
    variant, reference, labels = ([maps[number] for number in order] for maps in (variant, reference, labels))
    second = compared(variant, reference, [sure[number] for number in order], labels)
    assert second.agreement == pytest.approx(first.agreement)
    assert second.disagreement == pytest.approx(first.disagreement)
    assert second.frame_disagreement.tolist() == first.frame_disagreement[order].tolist()
    for mine, theirs in ((first.iou, second.iou), (first.class_shares, second.class_shares)):
        assert mine is not None
        assert theirs is not None
        assert np.array_equal(mine, theirs, equal_nan=True)
    assert second.mean_iou == first.mean_iou
    assert second.boundary_f == first.boundary_f


def test_where_no_pixel_is_labelled_the_margin_rule_decides() -> None:
    unlabelled = [np.full(SIZE_WH[::-1], UNKNOWN, np.uint8)] * 3
    found = compared(class_maps(1), class_maps(2), labels=unlabelled)
    assert len(faults(found, found, Budget())) == 1
    same = compared(class_maps(1), class_maps(1), labels=unlabelled)
    assert faults(same, same, Budget()) == []


@pytest.mark.parametrize("name", ["max_miou_drop", "max_class_drop", "max_disagreement"])
@pytest.mark.parametrize("value", [-0.1, 100.1, float("nan")])
def test_a_budget_that_makes_no_sense_is_refused_by_its_name(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=name):
        Budget(**{name: value})
