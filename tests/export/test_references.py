"""Every candidate is judged against these: a wrong pixel, label or order here lets a bad variant pass."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from tests.calibration.test_margin import plain_margin
from tests.export.models import ModelSpec, write_model
from vidseg.calibration.dataset import LabelledFolder, labelled_folder
from vidseg.calibration.frame_filter import thumbnail
from vidseg.calibration.gate import compare
from vidseg.calibration.margin import SURE_MARGIN
from vidseg.export.cut import find_cut
from vidseg.export.fuse import fuse
from vidseg.export.head import find_head
from vidseg.export.model import load_model
from vidseg.export.quantization import float_model_of
from vidseg.export.quantized_model import FloatModel
from vidseg.export.references import References, float_references, labelled_verification
from vidseg.export.runner import GraphRunner
from vidseg.runtime.engines.opening import EngineName
from vidseg.runtime.errors import DatasetError
from vidseg.runtime.frame import ClassMap, Image
from vidseg.runtime.geometry import Fit, placement_of
from vidseg.runtime.manifest import InputSpec
from vidseg.runtime.segmenter import Segmenter
from vidseg.runtime.upsampling import Alignment

SIZE_WH = (64, 48)
NAMES = ["one", "two", "three", "four"]
RUNNER = GraphRunner("test", "onnxruntime")
SCALE = 1 / 500
"""Of the input, at which the model is sure of most of a picture and not of all of it."""


def float_model(path: Path, spec: ModelSpec) -> FloatModel:
    model = load_model(write_model(path / "model.onnx", spec), None)
    head = find_head(model, None, None)
    cut = find_cut(model, head)
    zero, one = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    spec_of_input = InputSpec(size_wh=model.size_wh, fit="stretch", color="RGB", scale=SCALE, mean=zero, std=one)
    return float_model_of(model, head, cut, fuse(model, head, cut, spec_of_input))


def images(count: int, size_wh: tuple[int, int] = SIZE_WH) -> list[Image]:
    rng = np.random.default_rng(3)
    shape = (size_wh[1] // 8, size_wh[0] // 8, 3)
    return [np.asarray(cv2.resize(rng.integers(0, 256, shape, np.uint8), size_wh), np.uint8) for _ in range(count)]


def references_of(model: FloatModel, pictures: list[Image] | LabelledFolder, fit: Fit = "stretch") -> References:
    return float_references(RUNNER, model, fit, pictures, lambda: None)


def original_scores(folder: Path, image: Image) -> NDArray[np.float32]:
    """What the model itself gives, planes first."""
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    planes = (image[..., ::-1].astype(np.float32) * np.float32(SCALE)).transpose(2, 0, 1)[None]
    scores: NDArray[np.float32] = session.run(None, {"input": np.ascontiguousarray(planes)})[0][0]
    return scores


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Five pictures with labels, of several sizes."""
    for number, size_wh in enumerate([(64, 48), (128, 96), (64, 96), (100, 40), (64, 48)]):
        for name in ("images", "labels"):
            (tmp_path / name).mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / f"images/{number}.png"), images(5, size_wh)[number])
        labels = np.random.default_rng(number).integers(0, 4, size_wh[::-1], np.uint8)
        labels[0, 0] = 255
        cv2.imwrite(str(tmp_path / f"labels/{number}.png"), labels)
    return tmp_path


@pytest.mark.parametrize(
    ("spec", "alignment", "probabilities"),
    [
        (ModelSpec(), "half_pixel", False),
        (ModelSpec(head="softmax"), "half_pixel", True),
        (ModelSpec(stride=4), "half_pixel", False),
        (ModelSpec(stride=4, head="softmax"), "half_pixel", True),
        (ModelSpec(stride=4, head="sigmoid by class"), "half_pixel", True),
        (ModelSpec(stride=4, head="sigmoid"), "half_pixel", True),
        (ModelSpec(head="sigmoid"), "half_pixel", True),
        (ModelSpec(stride=4, upsampled="half_pixel"), "half_pixel", False),
        (ModelSpec(stride=4, upsampled="align_corners"), "align_corners", False),
        (ModelSpec(stride=4, upsampled="asymmetric"), "asymmetric", False),
        (ModelSpec(stride=4, upsampled="align_corners", head="softmax"), "align_corners", True),
    ],
)
@pytest.mark.parametrize("head_layout", ["NCHW", "NHWC"])
def test_float_is_sure_where_its_probabilities_at_full_size_are_far_apart(
    tmp_path: Path, spec: ModelSpec, alignment: Alignment, probabilities: bool, head_layout: str
) -> None:
    """The model as it was given, run apart, says the same."""
    spec = replace(spec, head_layout=head_layout)
    picture = images(1)[0]
    found = references_of(float_model(tmp_path, spec), [picture])[0]
    scores = original_scores(tmp_path, picture)
    planes = scores if head_layout == "NCHW" else scores.transpose(2, 0, 1)
    margin = plain_margin(planes, SIZE_WH, alignment, probabilities=probabilities)
    clear = np.abs(margin - SURE_MARGIN) > 1e-4
    assert np.array_equal(found.sure[clear], margin[clear] >= SURE_MARGIN)
    assert 0.02 < found.sure.mean() < 0.98


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
def test_float_agrees_with_itself_on_every_pass(tmp_path: Path, labelled: Path, engine: EngineName, fit: Fit) -> None:
    model = float_model(tmp_path, ModelSpec(stride=4, upsampled="align_corners"))
    verification = labelled_verification(labelled / "images", labelled / "labels", None, 255, NAMES)
    assert verification is not None
    found = float_references(GraphRunner("test", engine), model, fit, verification.folder, lambda: None)
    assert len(found) == 5
    with model.opener(model.content, engine, None, "fp32")() as opened:
        comparisons = [compare(Segmenter(opened, fit), found, verification.options) for _ in range(2)]
    for comparison in comparisons:
        assert comparison.frames == 5
        assert comparison.agreement == 1
        assert comparison.disagreement == 0
    assert comparisons[0].mean_iou == comparisons[1].mean_iou is not None


@pytest.mark.parametrize("fit", ["letterbox", "crop"])
def test_padding_is_taken_off_where_float_is_sure_as_off_its_classes(tmp_path: Path, fit: Fit) -> None:
    model = float_model(tmp_path, ModelSpec(stride=4))
    wide = images(1, (120, 40))[0]
    placement = placement_of((120, 40), SIZE_WH, fit)
    (found,) = references_of(model, [wide], fit)
    (whole,) = references_of(model, [placement.input_from_frame(wide)])
    assert np.array_equal(found.class_map, placement.without_padding(whole.class_map))
    assert np.array_equal(found.sure, placement.without_padding(whole.sure.view(np.uint8)).view(np.bool_))
    assert (found.sure.shape != whole.sure.shape) == (fit == "letterbox")


def test_each_picture_comes_with_its_own_labels_and_classes(tmp_path: Path, labelled: Path) -> None:
    model = float_model(tmp_path, ModelSpec())
    folder = labelled_folder(labelled / "images", labelled / "labels")
    found = references_of(model, folder)
    with model.opener(model.content, "onnxruntime", None, "fp32")() as engine:
        segment = Segmenter(engine)
        for number, (reference, pair) in enumerate(zip(found, folder, strict=True)):
            assert np.array_equal(reference.image, pair.image)
            assert reference.label is not None
            assert np.array_equal(reference.label, pair.label)
            assert np.array_equal(reference.class_map, segment(pair.image).class_map)
            assert reference.sure.dtype == np.bool_
            assert np.array_equal(found[number].sure, reference.sure)


def test_frames_without_labels_have_none(tmp_path: Path) -> None:
    done: list[None] = []
    frames = images(3)
    found = float_references(RUNNER, float_model(tmp_path, ModelSpec()), "stretch", frames, lambda: done.append(None))
    assert len(done) == len(found) == 3
    assert [np.array_equal(reference.image, frame) for reference, frame in zip(found, frames, strict=True)] == [
        True
    ] * 3
    assert all(reference.label is None for reference in found)


def test_what_is_kept_is_a_small_part_of_the_pictures(tmp_path: Path) -> None:
    """Five hundred pictures of two megapixels would not fit."""
    size_wh = (1024, 512)
    class_map: ClassMap = np.zeros(size_wh[::-1], np.uint8)
    for number, (left, top) in enumerate(np.random.default_rng(0).integers(0, 500, (60, 2))):
        class_map[top : top + 90, 2 * left : 2 * left + 90] = number % 19
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
        for number in range(20):
            picture = class_map if name == "labels" else np.stack([class_map] * 3, axis=-1)
            cv2.imwrite(str(tmp_path / name / f"{number:02}.png"), picture)
    found = References(labelled_folder(tmp_path / "images", tmp_path / "labels"))
    tracemalloc.start()
    try:
        for _ in range(20):
            found.append(class_map, class_map > 3)
        kept = tracemalloc.get_traced_memory()[0]
        for _reference in found:
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert kept / 20 < 0.01 * 6 * class_map.size
    assert peak < 4 * 6 * class_map.size  # that of one or two, not of twenty


@pytest.mark.parametrize(("ignore", "wrong"), [(255, 4), (3, 255)])
def test_a_label_of_no_class_is_named_before_anything_is_calibrated(labelled: Path, ignore: int, wrong: int) -> None:
    labels = np.zeros((48, 64), np.uint8)
    labels[:2] = wrong
    cv2.imwrite(str(labelled / "labels/4.png"), labels)
    for number in range(4):
        ids = np.full_like(cv2.imread(str(labelled / f"labels/{number}.png"), cv2.IMREAD_GRAYSCALE), ignore)
        cv2.imwrite(str(labelled / f"labels/{number}.png"), ids)
    with pytest.raises(DatasetError, match=rf"labels/4\.png.*id {wrong} at 128 pixels.*Check") as caught:
        labelled_verification(labelled / "images", labelled / "labels", None, ignore, NAMES)
    assert "\n" not in str(caught.value)


def test_labels_of_another_numbering_are_checked_by_the_map(labelled: Path) -> None:
    mapping = labelled / "map.txt"
    mapping.write_text("3, 2, 1, 0\n")
    found = labelled_verification(labelled / "images", labelled / "labels", mapping, 255, NAMES)
    assert found is not None
    assert found.names == ("four", "three", "two", "one")
    assert found.options.table[:5] == (3, 2, 1, 0, 255)
    assert np.array_equal(found.thumbnails, [thumbnail(pair.image) for pair in found.folder])
    mapping.write_text("0, 1, 2, 2\n")
    with pytest.raises(DatasetError, match="id 3"):
        labelled_verification(labelled / "images", labelled / "labels", mapping, 255, NAMES)


def test_labels_of_another_size_are_named_before_anything_is_calibrated(labelled: Path) -> None:
    cv2.imwrite(str(labelled / "labels/3.png"), np.zeros((7, 7), np.uint8))
    with pytest.raises(DatasetError, match=r"labels/3\.png.*7x7"):
        labelled_verification(labelled / "images", labelled / "labels", None, 255, NAMES)


def test_labels_that_are_all_ignored_judge_nothing(labelled: Path) -> None:
    for path in (labelled / "labels").iterdir():
        ids = np.full_like(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), 9)
        cv2.imwrite(str(path), ids)
    with pytest.raises(DatasetError, match=r"no pixel is labelled.*9"):
        labelled_verification(labelled / "images", labelled / "labels", None, 9, NAMES)


def test_without_folders_there_are_no_labelled_pictures() -> None:
    assert labelled_verification(None, None, None, 255, NAMES) is None


def test_a_picture_that_is_gone_by_the_next_pass_is_named(tmp_path: Path, labelled: Path) -> None:
    found = references_of(float_model(tmp_path, ModelSpec()), labelled_folder(labelled / "images", labelled / "labels"))
    (labelled / "images/2.png").unlink()
    with pytest.raises(DatasetError, match=r"images/2\.png"):
        list(found)
