"""`vidseg evaluate` has to give the numbers that a paper would, or say in one line why it cannot."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from vidseg.calibration.dataset import labelled_folder, read_labels
from vidseg.calibration.evaluation import EvaluationOptions, evaluate, read_mapping, report_document, report_text
from vidseg.runtime.engines.fake import FakeEngine
from vidseg.runtime.errors import ConfigurationError, DatasetError
from vidseg.runtime.geometry import Fit
from vidseg.runtime.segmenter import Segmenter

NAMES = tuple("abcdefgh")  # of the fake engine: blue / 32


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three pictures of blocks of one class each, labelled rightly."""
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    labels.mkdir()
    for number in range(3):
        ids = np.random.default_rng(number).integers(0, 8, (6, 8), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        image = np.zeros((48, 64, 3), np.uint8)
        image[..., 0] = ids * 32 + 5
        cv2.imwrite(str(images / f"{number}.png"), image)
        cv2.imwrite(str(labels / f"{number}.png"), ids)
    return images, labels


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_a_perfect_model_is_perfect(folders: tuple[Path, Path], fit: Fit) -> None:
    dataset = labelled_folder(*folders)
    seen: list[int] = []
    report = evaluate(Segmenter(FakeEngine((64, 48)), fit), dataset, NAMES, None, seen.append)
    assert report.scores.mean_iou == 1.0
    assert report.scores.pixel_accuracy == 1.0
    assert report.pictures == len(dataset) == 3
    assert seen == [1, 2, 3]


def test_what_a_crop_hides_is_a_miss(folders: tuple[Path, Path]) -> None:
    report = evaluate(Segmenter(FakeEngine((48, 48)), "crop"), labelled_folder(*folders), NAMES)
    assert report.scores.pixel_accuracy == 0.75


def test_a_map_merges_classes(folders: tuple[Path, Path], tmp_path: Path) -> None:
    images, labels = folders
    for path in labels.iterdir():
        ids = read_labels(path)
        cv2.imwrite(str(path), (ids // 2).astype(np.uint8))
    (tmp_path / "map.txt").write_text("0,0,1,1,2,2,3,3\n")
    mapping = read_mapping(tmp_path / "map.txt", NAMES)
    report = evaluate(
        Segmenter(FakeEngine((64, 48))), labelled_folder(images, labels), NAMES, EvaluationOptions(mapping=mapping)
    )
    assert report.scores.mean_iou == 1.0
    assert report.class_names == ("a/b", "c/d", "e/f", "g/h")


def test_a_list_of_ids_may_have_comments(tmp_path: Path) -> None:
    (tmp_path / "map.txt").write_text("# ours to theirs\n0 # sky\n1, 1  # road, pavement\n")
    assert read_mapping(tmp_path / "map.txt", "abc") == (0, 1, 1)
    (tmp_path / "map.yaml").write_text("a: 3 # sky\nb: 4\n")
    assert read_mapping(tmp_path / "map.yaml", "abc") == (3, 4, 255)


def test_a_yaml_map_by_name_and_number(tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    path.write_text("a: 3\n2: 1\n")
    assert read_mapping(path, NAMES) == (3, 255, 1, 255, 255, 255, 255, 255)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2", "2 for 8 classes"),
        ("1,2,3,4,5,6,7,x", "'x'"),
        ("1,2,3,4,5,6,7,256", "'256'"),
        ("z: 1", "no class 'z'"),
        ("a: -1", "'-1'"),
        ("a: [", "cannot be read"),
        ("no: 1", "no class False"),
        ("a: 1\n0: 2", "there twice"),
        ("", "0 for 8 classes"),
    ],
)
def test_a_map_that_does_not_fit_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "map.txt"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        read_mapping(path, NAMES)


def test_an_ignored_label_is_left_out(folders: tuple[Path, Path]) -> None:
    images, labels = folders
    for path in labels.iterdir():
        ids = read_labels(path).copy()
        ids[:24] = 200
        cv2.imwrite(str(path), ids)
    with pytest.raises(DatasetError, match=r"0\.png: a label is no class .* id 200"):
        evaluate(Segmenter(FakeEngine((64, 48))), labelled_folder(images, labels), NAMES)
    report = evaluate(
        Segmenter(FakeEngine((64, 48))), labelled_folder(images, labels), NAMES, EvaluationOptions(ignore=200)
    )
    assert report.matrix.sum() == 3 * 24 * 64


def test_the_report_reads_and_is_json_without_nan(folders: tuple[Path, Path]) -> None:
    names = (*NAMES, "never")
    report = evaluate(Segmenter(FakeEngine((64, 48))), labelled_folder(*folders), names)
    text = report_text(report)
    assert "mean IoU        1.0000" in text
    assert "never       -" in text
    document = json.loads(json.dumps(report_document(report), allow_nan=False))
    assert document["classes"][8]["iou"] is None
    assert document["mean_iou"] == 1.0


def test_the_ignored_class_is_not_in_the_report_and_predicting_it_is_a_miss(folders: tuple[Path, Path]) -> None:
    report = evaluate(Segmenter(FakeEngine((64, 48))), labelled_folder(*folders), NAMES, EvaluationOptions(ignore=7))
    assert "\nh " not in report_text(report)
    assert [entry["name"] for entry in report_document(report)["classes"]] == list("abcdefg")
    for path in folders[1].iterdir():
        cv2.imwrite(str(path), np.minimum(read_labels(path), 6))
    missed = evaluate(Segmenter(FakeEngine((64, 48))), labelled_folder(*folders), NAMES, EvaluationOptions(ignore=7))
    assert missed.matrix[6, -1] > 0
    assert missed.scores.precision[6] == 1.0


def _png(bits: int, color: int, row: bytes, palette: bytes = b"") -> bytes:
    """A picture of 4x1 as the PNG specification has it, because OpenCV writes no palettes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 4, 1, bits, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(kind, content)
        for kind, content in (
            (b"IHDR", header),
            (b"PLTE", palette),
            (b"IDAT", zlib.compress(b"\0" + row)),
            (b"IEND", b""),
        )
        if content or kind == b"IEND"
    )


class TestBadData:
    def test_missing_or_empty_folders(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match="no such folder"):
            labelled_folder(tmp_path / "nothing", tmp_path)
        with pytest.raises(DatasetError, match="no pictures"):
            labelled_folder(tmp_path, tmp_path)

    def test_an_image_without_labels(self, folders: tuple[Path, Path]) -> None:
        (folders[1] / "1.png").unlink()
        with pytest.raises(DatasetError, match=r"no labels for 1\.png: got 1 of 3 files"):
            labelled_folder(*folders)

    def test_labels_without_an_image(self, folders: tuple[Path, Path]) -> None:
        (folders[0] / "1.png").unlink()
        with pytest.raises(DatasetError, match=r"no image for 1\.png: got 1 of 3 files"):
            labelled_folder(*folders)

    def test_hidden_files_are_passed_over(self, folders: tuple[Path, Path]) -> None:
        (folders[0] / "._0.png").write_text("what macOS leaves on a stick")
        assert len(labelled_folder(*folders)) == 3

    @pytest.mark.parametrize(("bits", "row"), [(1, b"\xb0"), (2, b"\x1b"), (4, b"\x01\x23")])
    def test_small_palettes_keep_ids_and_small_gray_is_refused(self, tmp_path: Path, bits: int, row: bytes) -> None:
        path = tmp_path / "a.png"
        path.write_bytes(_png(bits, 3, row, bytes(3 << bits)))
        assert read_labels(path).tolist() == [{1: [1, 0, 1, 1], 2: [0, 1, 2, 3], 4: [0, 1, 2, 3]}[bits]]
        path.write_bytes(_png(bits, 0, row))
        with pytest.raises(DatasetError, match=f"gray, {bits} bits"):
            read_labels(path)

    def test_a_size_that_differs(self, folders: tuple[Path, Path]) -> None:
        cv2.imwrite(str(folders[1] / "0.png"), np.zeros((10, 20), np.uint8))
        with pytest.raises(DatasetError, match="20x10 for 64x48"):
            list(labelled_folder(*folders))

    @pytest.mark.parametrize("kind", ["color", "16 bit", "text", "truncated", "empty"])
    def test_labels_that_are_none(self, folders: tuple[Path, Path], kind: str) -> None:
        path = folders[1] / "0.png"
        if kind == "color":
            cv2.imwrite(str(path), np.zeros((48, 64, 3), np.uint8))
        elif kind == "16 bit":
            cv2.imwrite(str(path), np.zeros((48, 64), np.uint16))
        elif kind == "text":
            path.write_text("hello")
        else:
            path.write_bytes(path.read_bytes()[: 60 if kind == "truncated" else 0])
        with pytest.raises(DatasetError) as caught:
            list(labelled_folder(*folders))
        assert "\n" not in str(caught.value)
        assert "0.png" in str(caught.value)

    def test_an_unreadable_image(self, folders: tuple[Path, Path]) -> None:
        (folders[0] / "0.png").write_text("hello")
        with pytest.raises(DatasetError, match="not a picture"):
            list(labelled_folder(*folders))
