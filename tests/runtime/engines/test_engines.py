"""Engines that disagree, reuse their buffers or fail with a library's own exception break every promise above them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.tiny_models import brightest_channel, tiny_model, write_tiny_bundle
from vidseg.runtime.bundle import open_bundle
from vidseg.runtime.engines import Engine
from vidseg.runtime.engines.fake import FakeEngine, FakeService
from vidseg.runtime.engines.graph import GraphEngine
from vidseg.runtime.engines.onnxruntime import OnnxRuntimeEngine
from vidseg.runtime.engines.opening import EngineName, open_engine
from vidseg.runtime.engines.openvino import OpenVinoEngine
from vidseg.runtime.errors import BundleError, EngineError

ENGINES: list[Callable[[bytes], GraphEngine]] = [OnnxRuntimeEngine, OpenVinoEngine]


def _batch(seed: int, size_wh: tuple[int, int] = (16, 12)) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (1, size_wh[1], size_wh[0], 3), dtype=np.uint8)


@pytest.mark.parametrize("make", ENGINES)
def test_the_class_map_is_the_models(make: Callable[[bytes], Engine]) -> None:
    with make(tiny_model()) as engine:
        assert engine.input_shape_nhwc == (1, 12, 16, 3)
        for seed in range(5):
            batch = _batch(seed)
            class_map = engine.enqueue(batch).result()["class_map"]
            assert class_map.dtype == np.uint8
            assert np.array_equal(class_map, brightest_channel(batch))


@pytest.mark.parametrize("make", ENGINES)
def test_results_belong_to_the_caller(make: Callable[[bytes], Engine]) -> None:
    with make(tiny_model()) as engine:
        tickets = [engine.enqueue(_batch(seed)) for seed in range(4)]
        results = [ticket.result()["class_map"] for ticket in tickets]
        for seed, (ticket, result) in enumerate(zip(tickets, results, strict=True)):
            assert np.array_equal(result, brightest_channel(_batch(seed)))
            assert np.array_equal(ticket.result()["class_map"], result)


@pytest.mark.parametrize("make", ENGINES)
def test_batches_that_do_not_fit_are_refused(make: Callable[[bytes], Engine]) -> None:
    with make(tiny_model()) as engine:
        wrong = [
            _batch(0, (8, 8)),
            _batch(0)[0],
            _batch(0).astype(np.float32),
            _batch(0)[:, ::-1],
            np.repeat(_batch(0), 2, 0),
        ]
        for batch in wrong:
            with pytest.raises(EngineError, match="does not fit"):
                engine.enqueue(batch)


@pytest.mark.parametrize("make", ENGINES)
def test_a_closed_engine_says_so(make: Callable[[bytes], Engine]) -> None:
    engine = make(tiny_model())
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.enqueue(_batch(0))


@pytest.mark.parametrize("make", ENGINES)
@pytest.mark.parametrize("model", [b"", b"no model", tiny_model()[:200]])
def test_what_is_no_model_is_one_line(
    make: Callable[[bytes], Engine], model: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(EngineError) as caught:
        make(model)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_bundle_opens_in_either_engine(tmp_path: Path, name: EngineName) -> None:
    bundle = open_bundle(write_tiny_bundle(tmp_path / "tiny.vidseg"))
    with open_engine(bundle, name) as engine:
        assert engine.precision == "fp32"
        for image, class_map in bundle.samples():
            assert np.array_equal(engine.enqueue(image[None]).result()["class_map"][0], class_map)
    with pytest.raises(BundleError, match="no variant is named 'int8': got float"):
        open_engine(bundle, name, "int8")


def test_an_engine_may_be_made_in_one_thread_and_used_in_another() -> None:
    for make in ENGINES:
        engine = make(tiny_model())
        results: list[Mapping[str, NDArray[Any]]] = []
        thread = threading.Thread(target=lambda e=engine, r=results: r.append(e.enqueue(_batch(3)).result()))
        thread.start()
        thread.join(10)
        assert np.array_equal(results[0]["class_map"], brightest_channel(_batch(3)))


def test_the_fake_engine_keeps_its_own_schedule() -> None:
    """Ten batches of 5 ms end after 50 ms, however late each sleep returns."""
    import time

    with FakeEngine((16, 12), FakeService(5.0)) as engine:
        started = time.monotonic_ns()
        tickets = [engine.enqueue(_batch(0)) for _ in range(10)]
        for ticket in tickets:
            ticket.result()
        elapsed_ms = (time.monotonic_ns() - started) / 1e6
    assert 49.9 <= elapsed_ms < 100
