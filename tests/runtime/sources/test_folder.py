"""Images that come in another order, lying on their side or not at all give masks for the wrong pictures."""

from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.media import moving_blocks, opened, read_all
from vidseg.runtime.errors import SourceOpenError
from vidseg.runtime.frame import Image
from vidseg.runtime.sources.folder import FolderSource

PICTURE = cv2.GaussianBlur(moving_blocks(1, (48, 32))[0], (0, 0), 3).astype(np.uint8)


def _images(path: Path) -> list[Image]:
    return [frame.image for frame in read_all(opened(FolderSource(path)))[0]]


def test_images_come_as_a_person_counts_them(tmp_path: Path) -> None:
    names = ["2.png", "10.png", "a1.png", "a02.png", "a2.png", "A3.png", "b.png"]
    for level, name in enumerate(names):
        cv2.imwrite(str(tmp_path / name), np.full((8, 8, 3), level, np.uint8))
    (tmp_path / "readme.txt").write_text("no image")
    (tmp_path / "._2.png").write_bytes(b"what macOS leaves beside a file")
    (tmp_path / "sub.png").mkdir()
    frames, errors = read_all(opened(FolderSource(tmp_path)))
    assert not errors
    assert [int(frame.image[0, 0, 0]) for frame in frames] == list(range(7))
    assert [frame.index for frame in frames] == list(range(7))
    assert [frame.stamp_ns for frame in frames] == [index * 100_000_000 for index in range(7)]


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "bmp", "webp", "tif", "tiff", "PNG"])
def test_each_format_is_read(tmp_path: Path, suffix: str) -> None:
    cv2.imwrite(str(tmp_path / f"x.{suffix.lower()}"), PICTURE)
    (tmp_path / f"x.{suffix.lower()}").rename(tmp_path / f"x.{suffix}")
    (image,) = _images(tmp_path)
    assert np.abs(image.astype(int) - PICTURE).max() <= 12
    assert not image.flags.writeable


def test_a_single_image_is_a_source_of_one_frame(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "one.png"), PICTURE)
    cv2.imwrite(str(tmp_path / "other.png"), PICTURE)
    (image,) = _images(tmp_path / "one.png")
    assert np.array_equal(image, PICTURE)


def test_gray_16_bit_and_transparent_images_become_8_bit_bgr(tmp_path: Path) -> None:
    gray = PICTURE[:, :, 0]
    cv2.imwrite(str(tmp_path / "1.png"), gray)
    cv2.imwrite(str(tmp_path / "2.png"), gray.astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "3.tif"), gray.astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "4.png"), np.dstack([gray, gray, gray, np.full_like(gray, 7)]))
    images = _images(tmp_path)
    assert len(images) == 4
    for image in images:
        assert image.dtype == np.uint8
        assert np.array_equal(image, np.dstack([gray] * 3))


def test_a_photo_taken_upright_comes_upright(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "p.jpg"), PICTURE, [cv2.IMWRITE_JPEG_QUALITY, 100])
    plain = (tmp_path / "p.jpg").read_bytes()
    # One EXIF entry: tag 0x0112 (orientation), a short, 6: the top of the scene is the right side of the stored rows.
    tiff = b"MM\0*\0\0\0\x08" + b"\0\x01" + b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0" + b"\0\0\0\0"
    exif = b"\xff\xe1" + (len(tiff) + 8).to_bytes(2, "big") + b"Exif\0\0" + tiff
    (tmp_path / "p.jpg").write_bytes(plain[:2] + exif + plain[2:])
    (image,) = _images(tmp_path)
    assert np.abs(image.astype(int) - np.rot90(PICTURE, -1)).max() <= 12


def test_a_photo_with_a_film_behind_it_is_read(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "motion.jpg"), PICTURE)
    with (tmp_path / "motion.jpg").open("ab") as file:
        file.write(b"\xff\xd9 film \xff\xda film")
    assert len(_images(tmp_path)) == 1


def test_sizes_may_differ(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "1.png"), PICTURE)
    cv2.imwrite(str(tmp_path / "2.png"), PICTURE[:9, :11])
    assert [image.shape for image in _images(tmp_path)] == [(32, 48, 3), (9, 11, 3)]


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "tif"])
def test_a_damaged_image_is_left_out_and_the_next_one_read(tmp_path: Path, suffix: str) -> None:
    for name in "123":
        cv2.imwrite(str(tmp_path / f"{name}.{suffix}"), PICTURE)
    whole = (tmp_path / f"2.{suffix}").read_bytes()
    for content in (b"", b"no image", whole[: len(whole) * 7 // 10]):
        (tmp_path / f"2.{suffix}").write_bytes(content)
        frames, errors = read_all(opened(FolderSource(tmp_path)))
        assert [frame.index for frame in frames] == [0, 2]
        (error,) = errors
        assert f"2.{suffix} is no image, or damaged" in str(error)
        assert "\n" not in str(error)


def test_an_image_that_vanishes_is_left_out(tmp_path: Path) -> None:
    for name in "12":
        cv2.imwrite(str(tmp_path / f"{name}.png"), PICTURE)
    source = opened(FolderSource(tmp_path))
    (tmp_path / "1.png").unlink()
    frames, errors = read_all(source)
    assert (len(frames), len(errors)) == (1, 1)


@pytest.mark.parametrize("name", ["missing", "empty", "missing.png"])
def test_a_folder_without_images_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "labels.txt").write_text("sky")
    with pytest.raises(SourceOpenError, match=name) as caught:
        opened(FolderSource(tmp_path / name))
    assert caught.value.exit_code == 5


def test_stop_ends_the_wait_in_real_time(tmp_path: Path) -> None:
    for name in "12":
        cv2.imwrite(str(tmp_path / f"{name}.png"), PICTURE)
    stop = threading.Event()
    source = opened(FolderSource(tmp_path, realtime=True), stop=stop)
    assert source.read() is not None
    stop.set()
    assert source.read() is None
