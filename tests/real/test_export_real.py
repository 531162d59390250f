"""Real trained models of several families keep their accuracy through export: what a user brings is of this kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from vidseg.calibration.dataset import LabelledImage, labelled_folder
from vidseg.calibration.evaluation import EvaluationOptions, evaluate
from vidseg.calibration.metrics import ConfusionMatrix
from vidseg.export.exporter import ExportRequest, export_model
from vidseg.runtime.bundle import open_bundle
from vidseg.runtime.engines.opening import EngineName, open_engine
from vidseg.runtime.frame import UNKNOWN, Image, Segmentation
from vidseg.runtime.segmenter import Segmenter

pytestmark = pytest.mark.timeout(300)

CAMVID_FROM_CITYSCAPES = (3, 4, 1, 1, 7, 2, 6, 6, 5, 5, 0, 9, 10, 8, 8, 8, 8, 10, 10, 11)
IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
VOID = 11


@dataclass(frozen=True)
class Labelled:
    """A model, its preprocessing and the mIoU that its README gives on camvid/test."""

    file: str
    mean_iou: float
    options: dict[str, Any] = field(default_factory=dict)
    mapping: tuple[int, ...] | None = None
    engine: EngineName = "openvino"  # the faster one for this model


LABELLED = [
    Labelled(
        "cgnet_camvid_360x480", 0.6613, {"scale": 1.0, "mean": (105.65775, 103.329834, 99.625404), "labels": "camvid"}
    ),
    Labelled("enet_camvid_360x480", 0.5390, {"labels": "camvid12"}, engine="onnxruntime"),
    Labelled("espnetv2_s2_city_512x1024", 0.6045, IMAGENET, CAMVID_FROM_CITYSCAPES),
    Labelled("espnetv2_s1_city_256x512", 0.5266, IMAGENET, CAMVID_FROM_CITYSCAPES),
    Labelled(
        "streetnet_camvid_360x480",
        0.5507,
        {"color": "BGR", "mean": (0.406, 0.456, 0.485), "std": (0.225, 0.224, 0.229)},
    ),
]


@pytest.mark.parametrize("model", LABELLED, ids=lambda model: model.file)
def test_an_exported_model_reaches_its_published_accuracy(
    data: Path, few_frames: Path, tmp_path: Path, model: Labelled
) -> None:
    out = tmp_path / "model.vidseg"
    export_model(
        ExportRequest(model=data / f"models/{model.file}.onnx", out=out, frames=str(few_frames), **model.options)
    )
    bundle = open_bundle(out)
    names = [spec.name for spec in bundle.manifest.output.classes]
    dataset = labelled_folder(data / "camvid/test", data / "camvid/testannot")
    mapping = model.mapping or tuple(range(len(names)))
    table = np.array([*mapping, *[UNKNOWN] * (256 - len(mapping))], np.uint8)
    published = ConfusionMatrix(VOID + 1, VOID)
    results: list[Segmentation] = []
    with Segmenter(open_engine(bundle, model.engine)) as segmenter:

        def remember(image: Image) -> Segmentation:
            results[:] = [segmenter(image)]
            return results[0]

        def pairs() -> Iterator[LabelledImage]:
            for pair in dataset:
                yield pair
                size_wh = (pair.label.shape[1], pair.label.shape[0])
                nearest = cv2.resize(results[0].class_map, size_wh, interpolation=cv2.INTER_NEAREST)
                published.add(pair.label, table[nearest])

        report = evaluate(remember, pairs(), names, EvaluationOptions(ignore=VOID, mapping=model.mapping))
    assert report.pictures == 117
    assert published.scores().mean_iou == pytest.approx(model.mean_iou, abs=0.0005)
    # Our own resize keeps pixel centres in place, OpenCV's nearest does not: up to 0.0024 better, never worse.
    assert report.scores.mean_iou >= model.mean_iou - 0.0005


UNLABELLED: dict[str, dict[str, Any]] = {
    "deeplabv3_mnv2_voc_257": {"scale": 1 / 127.5, "mean": (1.0, 1.0, 1.0), "labels": "voc"},
    "mnv3_unet_portrait_256": {"labels": "portrait"},
    "sinet_portrait_320_original": {
        "color": "BGR",
        "mean": tuple(value / 255 for value in (102.890434, 111.25247, 126.91212)),
        "std": (62.93292, 62.82138, 66.355705),
        "labels": "portrait",
    },
    "selfie_segmentation_256_nhwc_original": {"labels": "portrait"},
}


@pytest.mark.parametrize("file", UNLABELLED)
def test_an_exported_model_agrees_with_the_original_on_a_real_clip(data: Path, tmp_path: Path, file: str) -> None:
    report = export_model(
        ExportRequest(
            model=data / f"models/{file}.onnx",
            out=tmp_path / "model.vidseg",
            frames=str(data / "videos/people_pingpong_720p24.mp4"),
            **UNLABELLED[file],
        )
    )
    for engines in report.accuracy.values():
        for accuracy in engines.values():
            assert accuracy.frames == 16
            assert accuracy.agreement >= 0.999
