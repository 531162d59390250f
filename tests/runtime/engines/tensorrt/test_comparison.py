"""The verdict decides what a robot runs: never a plan that is wrong, nor INT8 that gains nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from tests.runtime.engines.tensorrt.graphs import SIZE_WH, bundle_of, graph
from vidseg.runtime.bundle import Bundle
from vidseg.runtime.engines import Engine
from vidseg.runtime.engines.bench import BenchOptions
from vidseg.runtime.engines.fake import FakeEngine, FakeService
from vidseg.runtime.engines.tensorrt.building import Machine
from vidseg.runtime.engines.tensorrt.comparison import Comparison, compare, machine_text
from vidseg.runtime.engines.tensorrt.device import DeviceFacts
from vidseg.runtime.engines.tensorrt.inspection import EngineAudit
from vidseg.runtime.engines.tensorrt.library import load_library
from vidseg.runtime.engines.tensorrt.settings import BuildSettings, Precision
from vidseg.runtime.errors import EngineError
from vidseg.runtime.manifest import SampleSpec

QUICK = BenchOptions(seconds=0, min_rounds=2, block=2)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """Its one sample is what `FakeEngine` gives: the class is the blue value divided by 32."""
    image = np.random.default_rng(0).integers(0, 96, (*SIZE_WH[::-1], 3), dtype=np.uint8)
    pictures = {"image": image, "classes": image[..., 0] >> 5}
    members = {name: cv2.imencode(".png", picture)[1].tobytes() for name, picture in pictures.items()}
    made = bundle_of({"float": graph(), "int8": graph(quantized=True)}, **members)
    sample = SampleSpec(image="image", class_map="classes")
    return Bundle(made.path, msgspec.structs.replace(made.manifest, samples=(sample,)), made.members)


class FakeMaker:
    """Plans that take so many milliseconds a frame; a text is why there is none, a negative time one that is wrong."""

    def __init__(self, plans: Mapping[Precision, float | str]) -> None:
        self.plans = plans
        self.opened: list[BuildSettings] = []
        self.kept: list[BuildSettings] = []
        self.forgotten: list[Precision] = []

    def audit(self, settings: BuildSettings, progress: Callable[[float], None]) -> EngineAudit:
        found = self.plans[settings.precision]
        if isinstance(found, str):
            raise EngineError(found)
        progress(1.0)
        return EngineAudit(3, 1, {settings.precision: 2}, {"CaskConvolution": 2, "Reformat": 1})

    def keep(self, settings: BuildSettings) -> None:
        self.kept.append(settings)

    def forget(self, precision: Precision) -> None:
        self.forgotten.append(precision)

    def open(self, settings: BuildSettings) -> Engine:
        self.opened.append(settings)
        found = self.plans[settings.precision]
        assert not isinstance(found, str)
        engine = FakeEngine(SIZE_WH, FakeService(abs(found)))
        return Wrong(SIZE_WH, FakeService(abs(found))) if found < 0 else engine


class Wrong(FakeEngine):
    def decode(self, outputs: Any) -> Any:
        return super().decode({"class_map": outputs["class_map"] + 1})


def _compared(
    bundle: Bundle, plans: Mapping[Precision, float | str], settings: BuildSettings | None = None
) -> Comparison:
    steps: list[str] = []

    @contextmanager
    def progress(step: str) -> Iterator[Callable[[float], None]]:
        steps.append(step)
        yield lambda _share: None

    maker = FakeMaker(plans)
    found = compare(bundle, list(plans), settings or BuildSettings(), maker, progress=progress, options=QUICK)
    assert steps == [*(f"building in {precision}" for precision in plans), "comparing"]
    return found


def test_the_faster_one_is_taken_and_the_verdict_says_by_how_much(bundle: Bundle) -> None:
    found = _compared(bundle, {"fp16": 12.0, "int8": 3.0})
    assert found.chosen.variant == "int8"
    words = found.verdict.split()
    assert words[:2] == ["verdict:", "int8,"]
    assert 2 < float(words[2]) < 5
    assert found.verdict.endswith("times as fast as fp16")


def test_int8_that_gains_nothing_is_not_taken(bundle: Bundle) -> None:
    assert _compared(bundle, {"fp16": 3.0, "int8": 12.0}).chosen.variant == "fp16"


def test_a_plan_that_is_wrong_is_not_taken_and_the_verdict_says_so(bundle: Bundle) -> None:
    found = _compared(bundle, {"fp16": 6.0, "int8": -2.0})
    assert found.chosen.variant == "fp16"
    assert "int8 gives too few of the samples' pixels" in found.verdict
    with pytest.raises(EngineError, match="no engine gives the right classes here"):
        _compared(bundle, {"int8": -2.0})


def test_a_precision_without_a_plan_is_left_out_with_its_reason(bundle: Bundle) -> None:
    found = _compared(bundle, {"fp16": 2.0, "int8": "no variant `int8`"})
    assert found.left_out == {"int8": "no variant `int8`."}
    assert "int8: no variant `int8`." in found.text()
    assert found.verdict == "verdict: fp16"
    with pytest.raises(EngineError, match="no fp16"):
        _compared(bundle, {"fp16": "no fp16", "int8": "no int8"})


def test_what_was_told_for_a_precision_that_cannot_be_built_is_forgotten(bundle: Bundle) -> None:
    maker = FakeMaker({"fp16": 1.0, "int8": "no variant `int8`"})

    @contextmanager
    def progress(_step: str) -> Iterator[Callable[[float], None]]:
        yield lambda _share: None

    compare(bundle, ["fp16", "int8"], BuildSettings(), maker, progress=progress, options=QUICK)
    assert (maker.kept, maker.forgotten) == ([BuildSettings(precision="fp16")], ["int8"])


def test_all_settings_but_the_precision_are_the_same_for_each_plan(bundle: Bundle) -> None:
    maker = FakeMaker({"fp16": 1.0, "int8": 1.0})

    @contextmanager
    def progress(_step: str) -> Iterator[Callable[[float], None]]:
        yield lambda _share: None

    settings = BuildSettings(precision="fp32", max_batch=4, workspace_mib=64)
    compare(bundle, ["fp16", "int8"], settings, maker, progress=progress, options=QUICK)
    assert [(asked.precision, asked.max_batch, asked.workspace_mib) for asked in maker.opened] == [
        ("fp16", 4, 64), ("int8", 4, 64),
    ]  # fmt: skip
    assert maker.kept == maker.opened, "a run would build with other settings, and not find these plans"


def test_a_person_and_a_program_are_told_the_same(bundle: Bundle) -> None:
    found = _compared(bundle, {"fp32": 4.0, "fp16": 1.0})
    text, document = found.text(), json.loads(json.dumps(found.document()))
    assert "fp16: 3 layers, 1 only reformat; convolutions: 2 in fp16" in text
    assert "* tensorrt" in text
    assert document["plans"]["fp16"]["convolutions"] == {"fp16": 2}
    assert [row["candidate"]["variant"] for row in document["rows"]] == ["float", "fp16"]
    assert document["chosen"]["variant"] == "fp16"
    assert document["verdict"] == found.verdict


def test_the_machine_is_named() -> None:
    device = DeviceFacts(
        name="Orin", uuid="GPU-0", compute_capability=(8, 7), driver="560.35, CUDA 12.6", memory_bytes=1,
        integrated=True, power_mode="MAXN",
    )  # fmt: skip
    library = load_library("tests.runtime.engines.tensorrt.weak_tensorrt")
    assert machine_text(Machine(library, device)) == "Orin (compute capability 8.7, power mode MAXN), TensorRT 8.6.1"
