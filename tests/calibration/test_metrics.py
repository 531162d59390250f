"""A wrong matrix makes every number that the project is proud of wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp
from numpy.typing import NDArray
from sklearn import metrics as reference

from vidseg.calibration.metrics import ConfusionMatrix
from vidseg.runtime.errors import DatasetError

CLASSES = 5
shapes = st.tuples(st.integers(1, 12), st.integers(1, 12))


@st.composite
def pictures(draw: st.DrawFn) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    shape = draw(shapes)
    label = draw(stnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2, 3, 4, 255])))
    prediction = draw(stnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2, 3, 4, 7, 255])))
    return label, prediction


@given(pictures())
def test_the_matrix_is_scikit_learns_to_the_integer(
    picture: tuple[NDArray[np.uint8], NDArray[np.uint8]],
) -> None:
    label, prediction = picture
    matrix = ConfusionMatrix(CLASSES)
    matrix.add(label, prediction)
    known = label.ravel() != 255
    seen = np.where(prediction.ravel()[known] < CLASSES, prediction.ravel()[known], CLASSES)
    if known.any():
        expected = reference.confusion_matrix(label.ravel()[known], seen, labels=range(CLASSES + 1))[:CLASSES]
    else:
        expected = np.zeros((CLASSES, CLASSES + 1))
    assert np.array_equal(matrix.counts, expected)


@given(pictures())
def test_the_scores_are_scikit_learns(picture: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    label, prediction = picture
    matrix = ConfusionMatrix(CLASSES)
    matrix.add(label, prediction)
    scores = matrix.scores()
    known = label.ravel() != 255
    if not known.any():
        assert np.isnan(scores.mean_iou)
        assert np.isnan(scores.pixel_accuracy)
        return
    truth, seen = label.ravel()[known], prediction.ravel()[known]
    present = np.flatnonzero(~np.isnan(scores.iou))
    assert set(present) == (set(truth) | set(seen)) & set(range(CLASSES))
    options = {"labels": present, "average": None, "zero_division": np.nan}
    assert np.allclose(scores.iou[present], reference.jaccard_score(truth, seen, labels=present, average=None))
    for ours, theirs in (
        (scores.precision, reference.precision_score),
        (scores.recall, reference.recall_score),
        (scores.f1, reference.f1_score),
    ):
        assert np.allclose(ours[present], theirs(truth, seen, **options), equal_nan=True)
    assert scores.pixel_accuracy == pytest.approx(reference.accuracy_score(truth, seen))
    assert scores.mean_iou == pytest.approx(np.mean(scores.iou[present]))


@given(st.lists(pictures(), max_size=4))
def test_the_order_of_pictures_and_of_adding_does_not_matter(
    several: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]],
) -> None:
    forward, backward = ConfusionMatrix(CLASSES), ConfusionMatrix(CLASSES)
    for picture in several:
        forward.add(*picture)
    for picture in reversed(several):
        single = ConfusionMatrix(CLASSES)
        single.add(*picture)
        backward = single + backward
    assert np.array_equal(forward.counts, backward.counts)


def test_absent_classes_are_nan_and_left_out_of_the_mean() -> None:
    matrix = ConfusionMatrix(3)
    matrix.add(np.array([[0, 0, 1, 1]], np.uint8), np.array([[0, 1, 1, 1]], np.uint8))
    scores = matrix.scores()
    assert scores.iou.tolist()[:2] == pytest.approx([1 / 2, 2 / 3])
    assert np.isnan(scores.iou[2])
    assert scores.mean_iou == pytest.approx(7 / 12)


def test_an_ignored_class_is_no_class_but_predicting_it_is_a_miss() -> None:
    matrix = ConfusionMatrix(3, ignore=2)
    matrix.add(np.array([[0, 0, 1, 2]], np.uint8), np.array([[0, 2, 1, 1]], np.uint8))
    assert matrix.counts.tolist() == [[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]]
    scores = matrix.scores()
    assert scores.iou[:2].tolist() == [0.5, 1.0]
    assert np.isnan(scores.iou[2])
    assert scores.mean_iou == 0.75


def test_a_label_that_is_no_class_is_named() -> None:
    with pytest.raises(DatasetError, match="got id 9 at 3 pixels"):
        ConfusionMatrix(3).add(np.full((1, 3), 9, np.uint8), np.zeros((1, 3), np.uint8))
    with pytest.raises(DatasetError, match="differ in size"):
        ConfusionMatrix(3).add(np.zeros((1, 3), np.uint8), np.zeros((3, 1), np.uint8))
