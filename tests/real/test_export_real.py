"""Real trained models of several families keep their accuracy through export: what a user brings is of this kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import zoo
from benchmarks.zoo import VOID, ZOO, ZooModel
from vidseg.calibration.dataset import LabelledImage
from vidseg.calibration.evaluation import EvaluationOptions, evaluate
from vidseg.calibration.metrics import ConfusionMatrix
from vidseg.export.exporter import ExportRequest, export_model
from vidseg.runtime.bundle import open_bundle
from vidseg.runtime.engines.opening import open_engine
from vidseg.runtime.frame import UNKNOWN, Image, Segmentation
from vidseg.runtime.segmenter import Segmenter

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("data")]

PUBLISHED = {
    "cgnet_camvid_360x480": 0.6613,
    "enet_camvid_360x480": 0.5390,
    "streetnet_camvid_360x480": 0.5507,
}
"""Mean IoU on camvid/test, as the models' README gives it. Both ESPNetv2 take minutes: `benchmarks.int8_accuracy`
measures them."""


IN_SUITE = "streetnet_camvid_360x480"
"""The fastest of them; the others take a minute each, which is for `scripts/test --long`."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "judged" in metafunc.fixturenames:
        names = PUBLISHED if metafunc.config.getoption("long") else [IN_SUITE]
        models = [model for model in ZOO if model.name in names]
        metafunc.parametrize("judged", models, ids=lambda model: model.name)


def test_an_exported_model_reaches_its_published_accuracy(few_frames: Path, tmp_path: Path, judged: ZooModel) -> None:
    out = tmp_path / "model.vidseg"
    export_model(ExportRequest(model=judged.file, out=out, frames=str(few_frames), **judged.options))
    bundle = open_bundle(out)
    names = [spec.name for spec in bundle.manifest.output.classes]
    mapping = judged.mapping or tuple(range(len(names)))
    table = np.array([*mapping, *[UNKNOWN] * (256 - len(mapping))], np.uint8)
    nearest = ConfusionMatrix(VOID + 1, VOID)
    results: list[Segmentation] = []
    with Segmenter(open_engine(bundle, "openvino")) as segmenter:

        def remember(image: Image) -> Segmentation:
            results[:] = [segmenter(image)]
            return results[0]

        def pairs() -> Iterator[LabelledImage]:
            for pair in zoo.labelled_frames():
                yield pair
                size_wh = (pair.label.shape[1], pair.label.shape[0])
                resized = cv2.resize(results[0].class_map, size_wh, interpolation=cv2.INTER_NEAREST)
                nearest.add(pair.label, table[resized])

        report = evaluate(remember, pairs(), names, EvaluationOptions(ignore=VOID, mapping=judged.mapping))
    published = PUBLISHED[judged.name]
    assert report.pictures == 117
    assert nearest.scores().mean_iou == pytest.approx(published, abs=0.0005)
    # Our own resize keeps pixel centres in place, OpenCV's nearest does not: up to 0.0024 better, never worse.
    assert report.scores.mean_iou >= published - 0.0005


@pytest.mark.parametrize("model", [model for model in ZOO if not model.labelled], ids=lambda model: model.name)
def test_an_exported_model_agrees_with_the_original_on_a_real_clip(tmp_path: Path, model: ZooModel) -> None:
    report = export_model(
        ExportRequest(model=model.file, out=tmp_path / "model.vidseg", frames=model.calib_uri, **model.options)
    )
    for engines in report.accuracy.values():
        for accuracy in engines.values():
            assert accuracy.frames == 16
            assert accuracy.agreement >= 0.999
