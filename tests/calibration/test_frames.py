"""INT8 ranges are as good as the frames behind them: different ones, from the whole source, and always the same."""

from __future__ import annotations

import hashlib
import resource
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.media import moving_blocks, write_video
from vidseg.calibration.candidates import CandidateFrames, read_candidates
from vidseg.calibration.frame_filter import FrameCounts, FrameFilter, thumbnail
from vidseg.calibration.frame_store import FrameStore, StoredFrames
from vidseg.calibration.frames import CalibrationFrames, choose_frames
from vidseg.calibration.selection import FrameFeatures, SelectionOptions
from vidseg.runtime.errors import ConfigurationError, SourceOpenError, UsageError
from vidseg.runtime.frame import Image

DRIVE = "scene://street?size=96x64&pace=max&fps=2&frames="
SMALL = SelectionOptions(calibration=12, verification=8)


def small(image: Image) -> Image:
    return cv2.resize(image, (48, 32)).astype(np.uint8, copy=False)


@pytest.fixture
def store() -> Iterator[FrameStore]:
    with FrameStore(small) as store:
        yield store


def features_of(image: Image) -> FrameFeatures:
    colors = cv2.resize(image, (4, 3), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    return FrameFeatures(colors, colors, colors[:3] / 1e5)


def numbered_folder(folder: Path, pictures: list[Image]) -> Path:
    folder.mkdir()
    for number, picture in enumerate(pictures):
        cv2.imwrite(str(folder / f"{number}.png"), picture)
    return folder


def test_a_scene_at_rest_is_one_frame(tmp_path: Path, store: FrameStore) -> None:
    rng = np.random.default_rng(0)
    still = moving_blocks(1, (320, 240))[0]
    noisy = [np.clip(still + rng.normal(0, 15, still.shape), 0, 255).astype(np.uint8) for _ in range(20)]
    found = read_candidates(str(write_video(tmp_path / "still.mp4", noisy)), store, max_candidates=50)
    assert found.counts == FrameCounts(kept=1, near_duplicate=19)


def test_each_frame_of_a_drive_counts(store: FrameStore) -> None:
    seen: list[int] = []
    found = read_candidates(DRIVE + "70", store, max_candidates=70, progress=seen.append)
    assert found.counts == FrameCounts(kept=70)
    assert found.numbers == tuple(range(70))
    assert len(found.thumbnails) == len(store) == 70
    assert seen == list(range(1, 71))


def test_frames_that_show_nothing_are_left_out_and_counted_by_cause(tmp_path: Path, store: FrameStore) -> None:
    first, second = moving_blocks(8)[::7]
    noise = np.random.default_rng(0).normal(10, 5, first.shape).clip(0, 255).astype(np.uint8)
    shifted = np.roll(first, 8, 1)
    pictures = [first, first, noise, np.full_like(first, 255), second, first, shifted]
    folder = numbered_folder(tmp_path / "pictures", pictures)
    (folder / "3b.png").write_bytes(b"no picture")
    found = read_candidates(str(folder), store, max_candidates=50)
    assert found.counts == FrameCounts(kept=3, unreadable=1, blank=2, frozen=1, near_duplicate=1)
    assert str(found.counts) == "3 of 8 (1 unreadable, 2 blank, 1 frozen, 1 near duplicate)"
    assert found.numbers == (0, 5, 7)
    for image, picture in zip(store, (first, second, shifted), strict=True):
        np.testing.assert_array_equal(image, small(picture))
    np.testing.assert_array_equal(found.thumbnails[1], thumbnail(second))


@pytest.mark.parametrize("most", [7, 16])
def test_a_long_source_is_seen_from_start_to_end(most: int, store: FrameStore) -> None:
    found = read_candidates(DRIVE + "200", store, max_candidates=most)
    assert len(found.numbers) == len(store) == len(found.thumbnails) == most
    assert found.counts.read == 200
    steps = np.diff([*found.numbers, 200])
    assert found.numbers[0] == 0
    assert steps.max() <= 3 * 200 / most


def test_an_endless_source_is_read_up_to_a_limit(store: FrameStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidseg.calibration.candidates.MAX_FRAMES_READ", 30)
    lines: list[str] = []
    found = read_candidates(DRIVE.removesuffix("&frames="), store, max_candidates=50, log=lines.append)
    assert found.counts.read == 30
    assert "only the first 30 frames" in lines[0]


def test_a_video_that_was_cut_off_is_used_as_far_as_it_goes(tmp_path: Path, store: FrameStore) -> None:
    pictures = [np.roll(picture, 5 * number, 0) for number, picture in enumerate(moving_blocks(60))]
    video = write_video(tmp_path / "cut.mkv", pictures, codec="mpeg4")
    video.write_bytes(video.read_bytes()[: video.stat().st_size * 2 // 3])
    lines: list[str] = []
    found = read_candidates(str(video), store, max_candidates=100, log=lines.append)
    assert found.counts.kept > 10
    assert len(lines) == 1
    assert "cut off" in lines[0]


def test_a_source_that_cannot_serve_is_refused(tmp_path: Path, store: FrameStore) -> None:
    with pytest.raises(UsageError, match="record-calib"):
        read_candidates("scene://street", store, max_candidates=50)
    with pytest.raises(SourceOpenError, match="no such file"):
        read_candidates(str(tmp_path / "nothing.mp4"), store, max_candidates=50)


def chosen_from(uri: str, options: SelectionOptions = SMALL) -> CalibrationFrames:
    with FrameStore(small) as store:
        return choose_frames(read_candidates(uri, store, max_candidates=60), features_of, options)


def test_the_same_source_gives_the_same_frames() -> None:
    once, again = chosen_from(DRIVE + "60"), chosen_from(DRIVE + "60")
    assert once.calibration_numbers == again.calibration_numbers
    assert once.calibration_sha256 == again.calibration_sha256
    assert once.verification_sha256 == again.verification_sha256
    assert once.calibration_sha256 != chosen_from(DRIVE + "61&seed=1").calibration_sha256


def test_chosen_frames_can_be_gone_through_again_and_again(store: FrameStore) -> None:
    seen: list[int] = []
    candidates = read_candidates(DRIVE + "60", store, max_candidates=60)
    chosen = choose_frames(candidates, features_of, SMALL, progress=seen.append)
    assert seen == list(range(1, 61))
    assert (len(chosen.calibration), len(chosen.verification)) == (12, 8)
    assert chosen.gap >= 5
    first, second = list(chosen.calibration), list(chosen.calibration)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(chosen.calibration[3], store[chosen.calibration_numbers[3]])
    assert hashlib.sha256(b"".join(image.tobytes() for image in first)).hexdigest() == chosen.calibration_sha256
    assert not {image.tobytes() for image in first} & {image.tobytes() for image in chosen.verification}


def test_with_labelled_pictures_all_other_frames_are_calibrated_on(store: FrameStore) -> None:
    candidates = read_candidates(DRIVE + "30", store, max_candidates=30)
    options = SelectionOptions(calibration=30, verification=0)
    labelled = candidates.thumbnails[[4, 9]]
    chosen = choose_frames(candidates, features_of, options, excluded=labelled)
    assert set(chosen.calibration_numbers) == set(range(30)) - {4, 9}
    assert (len(chosen.verification), chosen.gap) == (0, 0)
    with pytest.raises(ConfigurationError, match=r"0 to calibrate on .* Give other frames than the labelled ones"):
        choose_frames(candidates, features_of, options, excluded=candidates.thumbnails)


def never(_image: Image) -> FrameFeatures:
    raise AssertionError("the model need not run")


@pytest.mark.parametrize(
    ("counts", "advice"),
    [
        (FrameCounts(kept=3, frozen=100, near_duplicate=21), "camera moves on"),
        (FrameCounts(kept=3, near_duplicate=21), "longer video"),
        (FrameCounts(kept=0, blank=5, unreadable=4), "lens"),
        (FrameCounts(kept=3, unreadable=4), "open elsewhere"),
        (FrameCounts(kept=3), "more pictures"),
    ],
)
def test_too_few_frames_are_refused_with_the_cause(store: FrameStore, counts: FrameCounts, advice: str) -> None:
    for picture in moving_blocks(counts.kept):
        store.append(picture)
    candidates = CandidateFrames("clip.mp4", store, tuple(range(counts.kept)), np.empty((0, 24, 32), np.uint8), counts)
    with pytest.raises(ConfigurationError, match=advice) as caught:
        choose_frames(candidates, never, SelectionOptions())
    assert f"too few different frames to calibrate on: got {counts}; 8 and 8 to verify needed." in str(caught.value)


def test_a_few_frames_are_split_so_that_both_sets_have_enough() -> None:
    chosen = chosen_from(DRIVE + "26", SelectionOptions())
    assert min(len(chosen.calibration), len(chosen.verification)) >= 8


@given(
    shapes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)), max_size=8),
    seed=st.integers(0, 99),
    data=st.data(),
)
@settings(deadline=None, max_examples=50)
def test_a_store_gives_back_what_it_was_given(
    shapes: list[tuple[int, int, int]], seed: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    images = [rng.integers(0, 256, shape, dtype=np.uint8)[::-1] for shape in shapes]
    with FrameStore(lambda image: image) as store:
        for image in images:
            store.append(image)
        assert all(np.array_equal(*pair) for pair in zip(store, images, strict=True))
        rows = sorted(data.draw(st.sets(st.integers(0, len(images) - 1)) if images else st.just(set())))
        store.keep(rows)
        images = [images[row] for row in rows]
        images += images[:1]
        for image in images[: len(images) - len(rows)]:
            store.append(image)
        assert all(np.array_equal(*pair) for pair in zip(store, images, strict=True))
        backwards = range(len(images))[::-1]
        assert all(
            np.array_equal(image, images[row])
            for image, row in zip(StoredFrames(store, tuple(backwards)), backwards, strict=True)
        )


def test_a_store_leaves_nothing_behind(tmp_path: Path) -> None:
    with FrameStore(small, tmp_path) as store:
        for picture in moving_blocks(3):
            store.append(picture)
        store.keep([1])
        assert len(list(tmp_path.rglob("*.raw"))) == len(store) == 1
    store.close()
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no folder for frames"):
        FrameStore(small, tmp_path / "missing")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with FrameStore(small, tmp_path) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        try:
            with pytest.raises(ConfigurationError, match="TMPDIR"):
                store.append(moving_blocks(1)[0])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert not list(tmp_path.rglob("*.raw"))


def test_memory_does_not_grow_with_the_number_of_frames(tmp_path: Path) -> None:
    """A frame has 480x360 pixels: 100 of them more would be 52 MB."""
    picture = moving_blocks(1, (480, 360))[0]
    peaks = []
    for count in (20, 120):
        tracemalloc.start()
        with FrameStore(lambda image: image, tmp_path) as store:
            for number in range(count):
                store.append(np.roll(picture, number, 0))
            StoredFrames(store, tuple(range(count))).sha256()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 500_000


@given(st.lists(st.integers(0, 5), max_size=30))
@settings(deadline=None)
def test_a_filter_keeps_each_picture_once(numbers: list[int]) -> None:
    pictures = moving_blocks(60)[::10]
    frame_filter = FrameFilter()
    kept = [number for number in numbers if frame_filter.rejection(pictures[number]) is None]
    assert kept == list(dict.fromkeys(numbers))
    expected = np.array([thumbnail(pictures[number]) for number in kept], np.uint8).reshape(-1, 24, 32)
    np.testing.assert_array_equal(frame_filter.thumbnails, expected)
    frame_filter.keep(range(0, len(kept), 2))
    np.testing.assert_array_equal(frame_filter.thumbnails, expected[::2])
