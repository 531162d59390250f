"""What a user gets on a machine with a GPU, from a bundle to its engine, on a GPU that is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from tests.fake_cuda import FakeCuda
from tests.fake_tensorrt import FakeTensorRt, fake_plan
from tests.fakes import CollectingSink, MemorySource
from tests.runtime.engines.tensorrt.graphs import SIZE_WH, bundle_of, graph
from tests.runtime.engines.tensorrt.test_engine import library_of
from vidseg.runtime.bundle import Bundle
from vidseg.runtime.engines import Engine, candidates, predict, trial
from vidseg.runtime.engines.bench import BenchOptions, bench
from vidseg.runtime.engines.candidates import Candidate
from vidseg.runtime.engines.choice import ChoiceMemory
from vidseg.runtime.engines.fake import FakeEngine
from vidseg.runtime.engines.opening import GpuUse, open_engine
from vidseg.runtime.engines.tensorrt import building, device, library, opening
from vidseg.runtime.engines.tensorrt.build_process import BuiltPlan
from vidseg.runtime.engines.tensorrt.building import Machine, keep_settings
from vidseg.runtime.engines.tensorrt.device import DeviceFacts
from vidseg.runtime.engines.tensorrt.engine import TensorRtEngine, TensorRtOptions
from vidseg.runtime.engines.tensorrt.plan_cache import PlanCache
from vidseg.runtime.engines.tensorrt.settings import BuildSettings
from vidseg.runtime.engines.trial import TrialEngine, engine_for
from vidseg.runtime.errors import DeviceError, EngineError
from vidseg.runtime.manifest import SampleSpec
from vidseg.runtime.pipeline import Pipeline

FACTS = DeviceFacts(
    name="Orin", uuid="GPU-0", compute_capability=(8, 7), driver="540.4, CUDA 12.6", memory_bytes=8 << 30,
    integrated=False,
)  # fmt: skip
pytestmark = pytest.mark.timeout(60)


@dataclass
class Gpu:
    """The machine: what is built, and what goes wrong.

    Attributes:
        cuda: its device, anew for each test.
        builds: settings of the plans so far.
        plan: makes a plan's bytes of its settings, or raises.
    """

    cuda: FakeCuda = field(default_factory=FakeCuda)
    builds: list[BuildSettings] = field(default_factory=list)
    plan: Callable[[BuildSettings], bytes] = lambda settings: fake_plan(SIZE_WH, settings.max_batch)

    def __post_init__(self) -> None:
        self.library = library_of(self.cuda)
        able = replace(self.library.abilities, weakly_typed=True, ranges=True)
        self.library = replace(self.library, abilities=able)

    @property
    def tensorrt(self) -> FakeTensorRt:
        module: FakeTensorRt = self.library.module
        return module

    def build(self, _bundle: Bundle, settings: BuildSettings, *_others: object) -> BuiltPlan:
        self.builds.append(settings)
        return BuiltPlan(self.plan(settings), b"", 0.1, 1, ())


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    """This machine has one, as far as the code above the driver can tell."""
    made = Gpu()
    monkeypatch.setattr(candidates, "gpu_usable", lambda: True)
    monkeypatch.setattr(device, "device_facts", lambda: FACTS)
    monkeypatch.setattr(opening, "this_machine", lambda: Machine(made.library, FACTS))
    monkeypatch.setattr(opening, "PycudaDriver", lambda: made.cuda)
    monkeypatch.setattr(building, "build_plan", made.build)
    monkeypatch.setattr(trial, "bench", partial(bench, options=BenchOptions(seconds=0.2)))
    yield made
    assert not made.cuda.is_entered, "an engine is not closed"


@pytest.fixture
def bundle() -> Bundle:
    """Its one sample is what the fake plans give: the class is the blue value divided by 32."""
    image = np.random.default_rng(0).integers(0, 96, (*SIZE_WH[::-1], 3), dtype=np.uint8)
    pictures = {"image": image, "classes": image[..., 0] >> 5}
    members = {name: cv2.imencode(".png", picture)[1].tobytes() for name, picture in pictures.items()}
    made = bundle_of({"float": graph("batch"), "int8": graph("batch", quantized=True)}, **members)
    variants = [msgspec.structs.replace(one, targets=("onnxruntime", "tensorrt")) for one in made.manifest.variants]
    manifest = msgspec.structs.replace(
        made.manifest, samples=(SampleSpec(image="image", class_map="classes"),), variants=(variants[0], variants[1])
    )
    return Bundle(made.path, manifest, made.members)


@pytest.fixture
def plans(tmp_path: Path) -> Path:
    return tmp_path / "cache/plans"


@pytest.fixture
def memory(tmp_path: Path) -> ChoiceMemory:
    return ChoiceMemory(tmp_path / "cache")


def started(bundle: Bundle, memory: ChoiceMemory, plans: Path, use: GpuUse | None = None) -> Engine:
    return engine_for(bundle, "auto", memory, gpu=replace(use or GpuUse(), plans=plans))


def test_the_first_start_builds_each_plan_once_and_the_next_none(
    gpu: Gpu, bundle: Bundle, memory: ChoiceMemory, plans: Path
) -> None:
    with started(bundle, memory, plans) as engine:
        image = np.zeros((*SIZE_WH[::-1], 3), np.uint8) + 64
        assert np.all(predict(engine, image).class_map == 2)
    assert sorted(settings.precision for settings in gpu.builds) == ["fp16", "fp32", "int8"]
    chosen = memory.recall(bundle)
    assert chosen is not None
    assert chosen.engine == "tensorrt"
    before = len(gpu.tensorrt.executed)
    with started(bundle, memory, plans):
        assert len(gpu.builds) == 3
        assert len(gpu.tensorrt.executed) - before < 10, "it is not measured again"


def test_another_release_of_tensorrt_is_measured_again(
    gpu: Gpu, bundle: Bundle, memory: ChoiceMemory, plans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(bundle, memory, plans).close()
    monkeypatch.setattr(library, "installed_files", lambda: ("tensorrt/__init__.py", 1, 2))
    assert memory.recall(bundle) is None
    assert gpu.builds


def test_runs_build_as_was_told(gpu: Gpu, bundle: Bundle, memory: ChoiceMemory, plans: Path) -> None:
    told = BuildSettings(precision="fp16", workspace_mib=64, optimization_level=1)
    keep_settings(bundle, told, PlanCache(plans))
    started(bundle, memory, plans, GpuUse(max_batch=4)).close()
    (built,) = [settings for settings in gpu.builds if settings.precision == "fp16"]
    assert built == replace(told, max_batch=4)


def test_a_plan_for_a_dla_runs_on_that_core(gpu: Gpu, bundle: Bundle, plans: Path) -> None:
    keep_settings(bundle, BuildSettings(precision="fp16", dla_core=1), PlanCache(plans))
    open_engine(bundle, "tensorrt", "fp16", gpu=GpuUse(plans)).close()
    open_engine(bundle, "tensorrt", "int8", gpu=GpuUse(plans)).close()
    assert gpu.tensorrt.dla_cores == [1, -1]


def test_a_kept_plan_that_tensorrt_refuses_is_built_again_once(gpu: Gpu, bundle: Bundle, plans: Path) -> None:
    good = gpu.plan
    gpu.plan = lambda _settings: b"junk"
    with pytest.raises(EngineError, match="TensorRT refuses its plan"):
        open_engine(bundle, "tensorrt", "fp16", gpu=GpuUse(plans))
    assert len(gpu.builds) == 2
    gpu.plan = good
    open_engine(bundle, "tensorrt", "fp16", gpu=GpuUse(plans)).close()
    open_engine(bundle, "tensorrt", "fp16", gpu=GpuUse(plans)).close()
    assert len(gpu.builds) == 3


def test_a_gpu_that_is_busy_at_one_start_is_taken_again_at_the_next(
    gpu: Gpu, bundle: Bundle, memory: ChoiceMemory, plans: Path, caplog: pytest.LogCaptureFixture
) -> None:
    started(bundle, memory, plans).close()
    chosen = memory.recall(bundle)
    busy = gpu.cuda.allocate_all()
    engine = started(bundle, memory, plans)
    assert isinstance(engine, TrialEngine)
    image = np.zeros((1, *SIZE_WH[::-1], 3), np.uint8)
    for _ in range(200):  # the trials on the CPU come to an end
        engine.enqueue(image).result()
    engine.close()
    assert memory.recall(bundle) == chosen
    assert "the GPU is not used" in caplog.text
    busy()
    with started(bundle, memory, plans) as engine:
        assert engine.device.startswith("Orin")


def test_a_gpu_without_room_is_a_fault_of_the_device_where_it_is_asked_for(
    gpu: Gpu, bundle: Bundle, plans: Path
) -> None:
    busy = gpu.cuda.allocate_all()
    with pytest.raises(DeviceError, match="no engine works here"):
        engine_for(bundle, "tensorrt", gpu=GpuUse(plans))
    busy()


def test_a_remembered_engine_that_cannot_be_opened_any_more_is_no_end(
    gpu: Gpu, bundle: Bundle, memory: ChoiceMemory, plans: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memory.remember(bundle, Candidate("tensorrt", "no such variant"))
    started(bundle, memory, plans).close()
    assert "was chosen before and cannot be loaded now" in caplog.text
    assert gpu.builds


def test_an_engine_that_is_opened_anew_may_be_of_another_kind_and_take_less_at_a_time() -> None:
    """Four cameras on a GPU whose runs begin to fail, then on the CPU, one picture at a time."""
    opened: list[Engine] = []

    def open_next() -> Engine:
        if opened:
            opened.append(FakeEngine(SIZE_WH))
        else:
            cuda = FakeCuda()
            failing = replace(library_of(cuda), module=FakeTensorRt(cuda, refuses_runs=frozenset(range(40, 10_000))))
            opened.append(TensorRtEngine(fake_plan(SIZE_WH, 4), failing, cuda, TensorRtOptions()))
        return opened[-1]

    sink = CollectingSink()
    sources = [MemorySource(200, name=f"clip {number}") for number in range(4)]
    pipeline = Pipeline(sources, open_next, [sink])
    pipeline.run()
    assert [type(engine) for engine in opened] == [TensorRtEngine, FakeEngine]
    assert len(sink.results) == 800
    for result in sink.results:
        assert np.all(result.class_map == result.frame.index % 8)
