"""Bundles on a real GPU: plans are built, agree with the CPU, run in a pipeline, and are never trusted blindly.

`scripts/test-gpu` runs these; elsewhere they are skipped.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.fakes import CollectingSink
from tests.gpu.material import TACTIC_SOURCES, Variant, bundles, expected, opened
from tests.runtime.engines.tensorrt.test_engine import frame_of
from vidseg.runtime.bundle import Bundle, open_bundle
from vidseg.runtime.clock import SystemClock
from vidseg.runtime.decoding import Prediction
from vidseg.runtime.engines import PlacedFrame, predict
from vidseg.runtime.engines.candidates import Candidate, gpu_usable, min_agreement, sample_agreement
from vidseg.runtime.engines.tensorrt import libcuda
from vidseg.runtime.geometry import Fit, placement_of
from vidseg.runtime.overlay import Overlay, OverlayStyle
from vidseg.runtime.pipeline import Pipeline
from vidseg.runtime.segmenter import segmentation_of
from vidseg.runtime.sources.opening import source_from_uri

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not gpu_usable(), reason="no GPU with TensorRT and pycuda"),
]

MAX_DISAGREEMENT = 0.005
"""Of pixels where float is sure, by INT8: the gate's own budget."""


@pytest.fixture(scope="session")
def plans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plans")


BUNDLES: list[Path | None] = [*bundles()] or [None]


@pytest.fixture(params=BUNDLES, ids=lambda path: path.stem if path else "none", scope="session")
def bundle(request: pytest.FixtureRequest) -> Bundle:
    if request.param is None:
        pytest.skip("no bundles here: python -m tests.gpu.material")
    return open_bundle(request.param)


@pytest.mark.parametrize("variant", ["fp16", "int8"])
def test_a_plan_agrees_with_onnx_runtime(bundle: Bundle, plans: Path, variant: Variant) -> None:
    with opened(bundle, variant, plans) as engine:
        candidate = Candidate("tensorrt", variant)
        assert sample_agreement(bundle, engine) >= min_agreement(bundle, candidate)
        equal, sure = [], []
        for frame in expected(bundle.path):
            different = predict(engine, frame.image).class_map != frame.class_map
            equal.append(1 - different.mean())
            sure.append((different & frame.sure).mean())
    assert equal
    if variant == "fp16":
        assert np.mean(equal) >= 0.999
    assert np.mean(sure) <= MAX_DISAGREEMENT


def test_batches_graphs_and_single_pictures_give_the_same(bundle: Bundle, plans: Path) -> None:
    images = [frame.image for frame in expected(bundle.path)][:4]
    with opened(bundle, "fp16", plans) as engine:
        wanted = [predict(engine, image).class_map for image in images]
    with opened(bundle, "fp16", plans, cuda_graphs=True) as engine:
        assert engine.records_graphs
        for image, class_map in zip(images, wanted, strict=True):
            np.testing.assert_array_equal(predict(engine, image).class_map, class_map)
    with opened(bundle, "fp16", plans, max_batch=4) as engine:
        if engine.max_batch < 4:
            pytest.skip("a batch gains nothing here, so none is offered")
        found = engine.enqueue(np.stack(images)).result()["class_map"]
        assert np.mean(found == np.stack(wanted)) >= 0.999, "other kernels: the last bits differ, no more"


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
def test_frames_are_fitted_and_drawn_on_the_gpu_as_on_the_cpu(bundle: Bundle, plans: Path, fit: Fit) -> None:
    style = OverlayStyle(legend=False)
    rng = np.random.default_rng(0)
    input_wh = bundle.manifest.input.size_wh
    with opened(bundle, "fp16", plans, style=style) as engine:
        for width, height in ((1280, 720), (641, 479), (1920, 1080), (97, 33)):
            image = rng.integers(0, 256, (height, width, 3), np.uint8)
            placement = placement_of((width, height), input_wh, fit)
            outputs = engine.enqueue_frames([PlacedFrame(image, placement)]).result()
            fitted = predict(engine, placement.input_from_frame(image)).class_map
            np.testing.assert_array_equal(outputs["class_map"][0], fitted)
            overlay = Overlay(bundle.manifest.output.classes, style)
            result = segmentation_of(frame_of(image), placement, Prediction(fitted), SystemClock())
            np.testing.assert_array_equal(outputs["blended"][0], overlay.draw(result))


def test_a_pipeline_runs_on_it(bundle: Bundle, plans: Path) -> None:
    sink = CollectingSink("all", wants_picture=True)
    overlay = Overlay(bundle.manifest.output.classes, OverlayStyle())
    sources = [source_from_uri(f"scene://street?frames=40&pace=max&seed={seed}") for seed in range(3)]
    pipeline = Pipeline(
        sources,
        lambda: opened(bundle, "fp16", plans, max_batch=4, style=OverlayStyle()),
        [sink],
        draw=lambda result, _statistics: overlay.draw(result, (), result.blended),
    )
    pipeline.run()
    assert len(sink.results) == 120
    assert pipeline.statistics().ledger.balanced
    assert all(result.blended is not None for result in sink.results)


def test_a_tampered_plan_is_never_used(bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = next(expected(bundle.path)).image
    with opened(bundle, "fp16", tmp_path / "plans") as engine:
        wanted = predict(engine, image).class_map
    (plan,) = (tmp_path / "plans").glob("*.plan")
    content = bytearray(plan.read_bytes())
    content[len(content) // 2] ^= 1
    plan.write_bytes(content)
    with caplog.at_level(logging.WARNING), opened(bundle, "fp16", tmp_path / "plans") as engine:
        assert np.mean(predict(engine, image).class_map == wanted) >= 0.999
    assert "is damaged" in caplog.text


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_engines_of_a_thread_close_in_any_order(bundle: Bundle, plans: Path, order: tuple[int, int]) -> None:
    image = next(expected(bundle.path)).image
    engines = [opened(bundle, variant, plans) for variant in ("fp16", "int8")]
    for engine in engines:
        predict(engine, image)
    engines[order[0]].close()
    predict(engines[order[1]], image)
    engines[order[1]].close()


def test_opening_again_and_again_takes_no_more_memory(bundle: Bundle, plans: Path) -> None:
    free = []
    for _ in range(10):
        with opened(bundle, "fp16", plans) as engine:
            predict(engine, next(expected(bundle.path)).image)
        free.append(libcuda.free_memory())
    assert free[1] - free[-1] < 16 << 20


def test_the_commands_build_find_and_run(bundle: Bundle, tmp_path: Path) -> None:
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    commands = {
        "build": ["--tactic-sources", ",".join(TACTIC_SOURCES), "--json"],
        "run": ["--source", "scene://street?frames=50&pace=max", "--sink", "null://", "--json"],
    }
    said = {}
    for command, options in commands.items():
        done = subprocess.run(
            [sys.executable, "-m", "vidseg", command, str(bundle.path), *options], env=environment, check=False,
            capture_output=True, text=True, timeout=800,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said[command] = done
    assert set(json.loads(said["build"].stdout)["plans"]) == {"fp16", "int8"}
    assert "from now on" in said["build"].stderr
    assert "building a plan" not in said["run"].stderr
    assert json.loads(said["run"].stdout.splitlines()[-1])["resolved"] == 50
