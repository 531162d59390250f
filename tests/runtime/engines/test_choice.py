"""A choice that is slower than another, or that says the wrong classes, is worse than no choice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.tiny_models import write_tiny_bundle
from vidseg.runtime.bundle import Bundle, open_bundle
from vidseg.runtime.engines.bench import BenchOptions, BenchRow, bench, bench_document, bench_text
from vidseg.runtime.engines.candidates import Candidate, candidates_of, gpu_usable
from vidseg.runtime.engines.choice import ChoiceMemory, choose_engine, fastest
from vidseg.runtime.engines.fake import FakeEngine, FakeService
from vidseg.runtime.engines.trial import engine_for
from vidseg.runtime.errors import BundleError, DeviceError, EngineError

ORT, OPENVINO = Candidate("onnxruntime", "float"), Candidate("openvino", "float")
SHORT = BenchOptions(seconds=0.0, min_rounds=1, block=2)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return open_bundle(write_tiny_bundle(tmp_path / "tiny.vidseg"))


def _row(candidate: Candidate, p50_ms: float, agreement: float = 1.0, error: str | None = None) -> BenchRow:
    return BenchRow(candidate, p50_ms, p50_ms, 1000 / p50_ms, 1.0, agreement, 10, error)


def test_a_named_variant_is_taken(bundle: Bundle) -> None:
    name = bundle.manifest.variants[-1].name
    with engine_for(bundle, variant=name) as engine:
        assert engine.max_batch == 1
    with pytest.raises(BundleError, match="no variant is named 'int9'"):
        engine_for(bundle, variant="int9")


@pytest.mark.skipif(gpu_usable(), reason="this machine has a GPU")
def test_without_a_gpu_tensorrt_is_refused_where_it_is_asked_for_and_never_tried(bundle: Bundle) -> None:
    with pytest.raises(DeviceError, match="there is no GPU for TensorRT"):
        engine_for(bundle, "tensorrt")
    assert all(candidate.engine != "tensorrt" for candidate in candidates_of(bundle))


def test_the_fastest_that_is_right_wins() -> None:
    slow, fast = _row(ORT, 10.0), _row(OPENVINO, 5.0)
    assert fastest([slow, fast]) == OPENVINO
    assert fastest([slow, replace(fast, agreement=0.998)]) == ORT
    assert fastest([slow, replace(fast, error="broken")]) == ORT
    with pytest.raises(EngineError, match=r"no engine gives the right classes here.*openvino float: 99\.800%"):
        fastest([replace(fast, agreement=0.998)])


def test_a_remembered_choice_stays_unless_it_loses_clearly() -> None:
    assert fastest([_row(ORT, 10.0), _row(OPENVINO, 9.6)], remembered=ORT) == ORT
    assert fastest([_row(ORT, 10.0), _row(OPENVINO, 9.4)], remembered=ORT) == OPENVINO


def test_every_candidate_is_measured_and_judged_by_the_samples(bundle: Bundle) -> None:
    candidates = candidates_of(bundle, (1, 2))
    assert candidates == [Candidate(e, "float", n) for e in ("onnxruntime", "openvino") for n in (1, 2)]
    shares: list[float] = []
    rows = bench(bundle, candidates, SHORT, shares.append)
    assert [row.candidate for row in rows] == candidates
    assert all(row.error is None and row.agreement == 1.0 and row.frames == 2 for row in rows)
    assert all(0 < row.latency_p50_ms <= row.latency_p99_ms and row.throughput_fps > 0 for row in rows)
    assert shares == [1.0]
    chosen = fastest(rows)
    assert bench_text(rows, chosen).count("\n* ") == 1
    assert bench_document(rows, chosen)["chosen"]["engine"] == chosen.engine


def test_a_long_name_does_not_shift_the_columns() -> None:
    rows = [_row(ORT, 10.0), _row(Candidate("onnxruntime", "int8-onnxruntime-cut"), 5.0)]
    head, *lines = bench_text(rows, ORT).splitlines()
    assert {line.rindex("  ") for line in lines} == {head.rindex("  ")}


@pytest.mark.skipif(gpu_usable(), reason="this machine has a GPU")
def test_a_candidate_that_cannot_be_loaded_says_why(bundle: Bundle) -> None:
    rows = bench(bundle, [Candidate("tensorrt", "fp16"), ORT], SHORT)
    assert "no GPU for TensorRT" in (rows[0].error or "")
    assert fastest(rows) == ORT
    assert "no GPU for TensorRT" in bench_text(rows, ORT)
    assert bench_document(rows, ORT)["rows"][0]["latency_p50_ms"] is None


def test_a_choice_is_remembered_for_its_bundle(bundle: Bundle, tmp_path: Path) -> None:
    memory = ChoiceMemory(tmp_path / "cache")
    assert memory.recall(bundle) is None
    chosen = choose_engine(bundle, memory, SHORT)
    other = next(candidate for candidate in (ORT, OPENVINO) if candidate != chosen)
    assert memory.recall(bundle) == chosen
    memory.remember(bundle, other)
    assert choose_engine(bundle, memory) == other  # taken as it is, not measured again
    larger = open_bundle(write_tiny_bundle(tmp_path / "larger.vidseg", (32, 24)))
    assert memory.recall(larger) is None
    with engine_for(bundle, "auto", memory, trials=False) as engine:
        assert type(engine).__name__.lower().removesuffix("engine") == other.engine


@pytest.mark.parametrize("text", ["", "no json", "[]", '{"KEY": 3}', '{"KEY": {"engine": "x", "variant": "float"}}'])
def test_a_damaged_memory_is_no_memory(bundle: Bundle, tmp_path: Path, text: str) -> None:
    memory = ChoiceMemory(tmp_path / "cache")
    memory.remember(bundle, ORT)
    file = tmp_path / "cache/engine-choices.json"
    key = file.read_text().split('"')[1]
    file.write_text(text.replace("KEY", key))
    assert memory.recall(bundle) is None
    memory.remember(bundle, OPENVINO)
    assert memory.recall(bundle) == OPENVINO


def test_a_memory_that_others_can_write_to_is_not_used(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memory = ChoiceMemory(tmp_path / "cache")
    memory.remember(bundle, ORT)
    (tmp_path / "cache").chmod(0o777)
    assert memory.recall(bundle) is None
    memory.remember(bundle, OPENVINO)
    assert "is not remembered" in caplog.text


def test_one_that_fails_while_it_is_measured_costs_its_own_row(bundle: Bundle) -> None:
    faults: dict[Candidate, dict[int, Exception]] = {
        ORT: {}, OPENVINO: {9: EngineError("gone")}, Candidate("tensorrt", "fp16"): {11: DeviceError("lost")},
    }  # fmt: skip
    rows = bench(
        bundle, list(faults), BenchOptions(0, 3, 4),
        load=lambda candidate: FakeEngine((16, 12), FakeService(0.1, faults[candidate])),
    )  # fmt: skip
    assert [(row.error, row.device_failed) for row in rows] == [(None, False), ("gone.", False), ("lost.", True)]
    assert rows[0].frames == 12
    with pytest.raises(DeviceError, match="no engine works here: got tensorrt fp16: lost"):
        fastest(rows[2:])
    with pytest.raises(EngineError, match="no engine works here: got openvino"):
        fastest(rows[1:])
