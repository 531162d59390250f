"""The scene is the ruler that the rest is measured with: it has to be exact."""

from __future__ import annotations

import threading

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import CollectingSink, ManualClock
from vidseg.runtime.clock import SystemClock
from vidseg.runtime.engines.fake import FakeEngine
from vidseg.runtime.errors import UsageError
from vidseg.runtime.frame import UNKNOWN, Frame
from vidseg.runtime.pipeline import Pipeline
from vidseg.runtime.sources.scene import SceneOptions, SceneSource
from vidseg.runtime.sources.street.classes import STREET_CLASSES
from vidseg.runtime.sources.street.code import StreetCode, code_height, read_code, write_code
from vidseg.runtime.sources.street.render import Street

pytestmark = pytest.mark.timeout(60)
SMALL = SceneOptions(size_wh=(160, 120), frames=5, live=False)


def _frames(source: SceneSource) -> list[Frame]:
    source.open(SystemClock(), threading.Event())
    frames = []
    while (frame := source.read()) is not None:
        frames.append(frame)
    return frames


def test_the_same_seed_gives_the_same_pixels_in_any_order() -> None:
    first, second = Street(7, (160, 120)), Street(7, (160, 120))
    for index in (40, 3, 40):
        image, labels = first.render(index, index / 30)
        again, labels_again = second.render(index, index / 30)
        assert np.array_equal(image, again)
        assert np.array_equal(labels, labels_again)
    assert not np.array_equal(Street(8, (160, 120)).render(40, 4 / 3)[0], image)


def test_the_scene_moves_and_shows_every_class() -> None:
    seen: set[int] = set()
    street = Street(0, (320, 240))
    previous = None
    for second in range(0, 60, 3):
        image, labels = street.render(second * 30, second)
        seen |= set(np.unique(labels).tolist())
        if previous is not None:
            assert (np.abs(image.astype(int) - previous).max(axis=2) > 40).mean() > 0.02
        previous = image.astype(int)
    assert seen == set(range(len(STREET_CLASSES)))


def test_labels_are_those_of_the_picture_to_the_pixel() -> None:
    """Without noise, neighbours in the picture differ sharply only where labels (or details of one thing) change."""
    image, labels = Street(3, (320, 240), noise=False).render(90, 3.0)
    edges = np.zeros(labels.shape, bool)
    edges[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edges[1:] |= labels[1:] != labels[:-1]
    sky = cv2.erode((labels == 0).astype(np.uint8), np.ones((5, 5), np.uint8)) == 1
    assert edges.any()
    gradient = np.abs(np.diff(image.astype(int), axis=1)).max(axis=2)
    assert gradient[sky[:, 1:]].max() <= 12  # nothing but sky inside of what is labelled sky
    assert np.median(gradient[edges[:, 1:]]) > 12  # and an edge of the picture at the edges of the labels


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**48 - 1),
    st.sampled_from([(640, 480), (640, 360), (321, 243), (1280, 720)]),
    st.integers(0, 2**31),
)
def test_the_code_reads_back_after_scaling_blending_and_compression(
    index: int, captured_us: int, size_wh: tuple[int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
    code = StreetCode(index, captured_us)
    write_code(image, code)
    assert read_code(image) == code
    small = cv2.resize(image, (480, 360), interpolation=cv2.INTER_LINEAR)
    palette = np.asarray([spec.color_rgb[::-1] for spec in STREET_CLASSES], np.uint8)
    classes = cv2.resize(
        rng.integers(0, len(palette), (9, 12), dtype=np.uint8), (480, 360), interpolation=cv2.INTER_NEAREST
    )
    blended = cv2.addWeighted(small, 0.5, palette[classes], 0.5, 0)
    packed = cv2.imencode(".jpg", blended, [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
    unpacked = cv2.imdecode(packed, cv2.IMREAD_COLOR)
    assert unpacked is not None
    assert read_code(unpacked.astype(np.uint8)) == code


def test_a_damaged_code_is_none_rather_than_wrong() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        image = np.zeros((480, 640, 3), np.uint8)
        write_code(image, StreetCode(5, 6))
        column = 40 + 17 * int(rng.integers(0, 30))
        image[-8:, column : column + 17] = 255 - image[-8:, column : column + 17]
        assert read_code(image) in (None, StreetCode(5, 6))
    assert read_code(np.zeros((480, 640, 3), np.uint8)) is None
    assert read_code(rng.integers(0, 256, (480, 640, 3), dtype=np.uint8)) is None


def test_every_frame_carries_its_number_and_capture_time() -> None:
    for number, frame in enumerate(_frames(SceneSource(SceneOptions(frames=4, live=False)))):
        assert (frame.index, frame.stamp_ns) == (number, round(number * 1e9 / 30))
        assert read_code(frame.image) == StreetCode(number, frame.captured_ns // 1000)
        assert not frame.image.flags.writeable


def test_labels_are_unknown_under_the_code_only() -> None:
    labels = SceneSource(SMALL).labels(2)
    strip = code_height(120)
    assert (labels[-strip:] == UNKNOWN).all()
    assert (labels[:-strip] < len(STREET_CLASSES)).all()


def test_a_live_scene_keeps_its_schedule_and_shows_what_a_late_reader_missed() -> None:
    clock, stop = ManualClock(), threading.Event()
    source = SceneSource(SceneOptions(size_wh=(64, 48), fps=10))
    source.open(clock, stop)
    indices = []
    for elapsed_ms in (0, 100, 100, 350, 50, 100):
        clock.advance_ms(elapsed_ms)
        frame = source.read()
        assert frame is not None
        indices.append(frame.index)
    assert indices == [0, 1, 2, 5, 6, 7]


def test_a_live_scene_that_waits_ends_when_it_is_stopped() -> None:
    stop = threading.Event()
    source = SceneSource(SceneOptions(size_wh=(64, 48), fps=0.01))
    source.open(SystemClock(), stop)
    assert source.read() is not None
    results: list[Frame | None] = []
    reader = threading.Thread(target=lambda: results.append(source.read()), daemon=True)
    reader.start()
    stop.set()
    reader.join(5)
    assert results == [None]


def test_the_true_age_can_be_read_from_what_a_sink_gets() -> None:
    sink = CollectingSink()
    Pipeline([SceneSource(SMALL)], lambda: FakeEngine((480, 360)), [sink]).run()
    now_us = SystemClock().now_ns() // 1000
    for number, result in enumerate(sink.results):
        code = read_code(result.frame.image)
        assert code is not None
        assert code.index == number
        assert 0 < now_us - code.captured_us < 60e6


@pytest.mark.parametrize(
    "uri",
    ["scene://park", "scene://street?sise=1x1", "scene://street?size=640", "scene://street?fps=0", "scene://street?fps=nan",
     "scene://street?pace=fast", "scene://street?frames=-1", "scene://street?size=1x1", "scene://street?seed=x",
     "scene:street", "scene://street[?x", "scene://street#a", "scene://street?fps=1e-320",
     "scene://street?seed=1\n", "scene://street?seed=" + "9" * 4000],
)  # fmt: skip
def test_a_uri_that_is_not_understood_is_one_line(uri: str) -> None:
    with pytest.raises(UsageError) as caught:
        SceneSource.from_uri(uri)
    assert "\n" not in str(caught.value)
    assert "got" in str(caught.value)
    assert len(str(caught.value)) < 1000
