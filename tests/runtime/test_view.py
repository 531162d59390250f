"""A region of interest that is shifted by a pixel, or a privacy polygon that shows something, is worse than none."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.fakes import CollectingSink
from vidseg.runtime.clock import Clock
from vidseg.runtime.engines.fake import FakeEngine
from vidseg.runtime.errors import ConfigurationError
from vidseg.runtime.frame import UNKNOWN, Frame
from vidseg.runtime.geometry import Fit
from vidseg.runtime.pipeline import Pipeline
from vidseg.runtime.pipeline.options import PipelineOptions
from vidseg.runtime.view import View

TOP_HALF = ((0.0, 0.0), (1.0, 0.0), (1.0, 0.5), (0.0, 0.5))
SHARES = st.integers(0, 10).map(lambda tenth: tenth / 10)


class Pictures:
    """A recording of given pictures."""

    live = False

    def __init__(self, name: str, *images: NDArray[np.uint8]) -> None:
        self.name = name
        self._images = list(images)
        self._index = 0

    def open(self, clock: Clock, stop: threading.Event) -> None:  # noqa: ARG002 - it never waits
        self._clock = clock

    def read(self) -> Frame | None:
        if self._index == len(self._images):
            return None
        self._index += 1
        return Frame(self.name, 0, self._index - 1, self._clock.now_ns(), 0, "pts", self._images[self._index - 1])

    def close(self) -> None:
        pass


def blocks(seed: int, size_wh: tuple[int, int] = (80, 60)) -> NDArray[np.uint8]:
    """Blocks of ten pixels whose blue channel tells their class, 0..7."""
    width, height = size_wh
    classes = np.random.default_rng(seed).integers(0, 8, (height // 10, width // 10), np.uint8)
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = classes.repeat(10, 0).repeat(10, 1) << 5
    return image


def classes_seen(image: NDArray[np.uint8], view: View, fit: Fit = "stretch") -> NDArray[np.uint8]:
    """Of the whole frame, by a model that takes 40x30."""
    sink = CollectingSink()
    options = PipelineOptions(views={"file": view}, fit=fit)
    Pipeline([Pictures("file", image)], lambda: FakeEngine((40, 30)), [sink], options=options).run()
    (result,) = sink.results
    assert result.frame.image.shape == image.shape
    return result.at_frame_size()


@given(st.integers(0, 99), SHARES, SHARES, SHARES, SHARES)
def test_inside_of_the_region_is_what_is_there_and_outside_nothing_is_known(
    seed: int, left: float, top: float, width: float, height: float
) -> None:
    if width == 0 or height == 0 or left + width > 1 or top + height > 1:
        return
    image = blocks(seed, (100, 100))
    found = classes_seen(image, View(roi=(left, top, width, height)))
    columns = slice(round(left * 100), round((left + width) * 100))
    rows = slice(round(top * 100), round((top + height) * 100))
    inside = found[rows, columns]
    wanted = image[rows, columns, 0] >> 5
    centres = np.ix_(range(5, inside.shape[0], 10), range(5, inside.shape[1], 10))  # between blocks pixels are mixed
    np.testing.assert_array_equal(inside[centres], wanted[centres])
    outside = np.ones(found.shape, bool)
    outside[rows, columns] = False
    assert np.all(found[outside] == UNKNOWN)


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
def test_what_is_to_be_ignored_is_unknown_and_the_rest_is_as_before(fit: Fit) -> None:
    image = blocks(1)
    plain, masked = classes_seen(image, View(), fit), classes_seen(image, View(ignore=(TOP_HALF,)), fit)
    assert np.all(masked[:29] == UNKNOWN)
    np.testing.assert_array_equal(masked[33:], plain[33:])


def test_a_region_and_what_is_ignored_in_it_work_together() -> None:
    found = classes_seen(blocks(2), View(roi=(0.5, 0, 0.5, 1), ignore=(TOP_HALF,)))
    assert np.all(found[:, :40] == UNKNOWN)
    assert np.all(found[:29] == UNKNOWN)
    assert not np.any(found[33:, 41:] == UNKNOWN)


@pytest.mark.parametrize(
    "wrong",
    [{"roi": (0, 0, 0, 1)}, {"roi": (0.5, 0, 0.6, 1)}, {"roi": (-0.1, 0, 0.5, 0.5)}, {"ignore": (((0, 0), (1, 1)),)},
     {"roi": (float("nan"), 0, 1, 1)}],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        View(**wrong)  # type: ignore[arg-type]
