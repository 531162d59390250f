"""INT8 that loses more than it may, is slower than float, or differs from run to run, must not reach a device."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest

from tests.export.models import write_wide_model
from vidseg.calibration.gate import Budget
from vidseg.calibration.table import parse_table
from vidseg.export import rtx
from vidseg.export.exporter import ExportRequest, export_model
from vidseg.export.graph import Graph
from vidseg.export.lint import lint, quantized_products
from vidseg.export.plan import read_plan
from vidseg.export.quantization import QuantizationRequest
from vidseg.export.rtx import RtxOptions, build_rtx
from vidseg.runtime.bundle import Bundle, open_bundle
from vidseg.runtime.engines import predict
from vidseg.runtime.engines.candidates import Candidate, candidates_of, min_agreement, sample_agreement
from vidseg.runtime.errors import ConfigurationError, UsageError
from vidseg.runtime.sources.street.render import Street

SIZE_WH = (96, 64)
CALIB = "scene://street?pace=max&fps=1&frames=60&size=96x64&noise=0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8")
    write_wide_model(folder / "model.onnx", SIZE_WH)
    (folder / "names.txt").write_text("one\ntwo\nthree\nfour\n")
    return folder


@pytest.fixture(scope="module")
def request_for(folder: Path) -> ExportRequest:
    return ExportRequest(
        model=folder / "model.onnx",
        out=folder / "model.vidseg",
        labels=str(folder / "names.txt"),
        quantization=QuantizationRequest(frames_uri=CALIB, frames=12, dla=True, cache=folder / "cache"),
    )


@pytest.fixture(scope="module")
def bundle(request_for: ExportRequest) -> Bundle:
    export_model(request_for)
    return open_bundle(request_for.out)


def _report(bundle: Bundle) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(bundle.members["report.json"])
    return document


def test_what_is_written_keeps_the_budget_and_gains(bundle: Bundle) -> None:
    report = _report(bundle)
    written = {engine: target for engine, target in report["targets"].items() if target["written"]}
    for target in written.values():
        times = target["latency_ms"]
        assert target["faults"] == []
        assert target["disagreement"] <= 0.005
        assert min(times["int8"], times["int8-cut"]) < min(times["float"], times["float-cut"])
    assert report["verdict"] == ("float" if not written else report["verdict"])
    names = {variant.name for variant in bundle.manifest.variants}
    assert names >= {"float", "float-cut", "int8", "int8-fp16", "int8-ranges"}
    assert {name for name in names if name.startswith("int8-o")} == {
        f"int8-{engine}{ending}" for engine in written for ending in ("", "-cut")
    }


def test_every_variant_runs_here_and_reproduces_the_samples(bundle: Bundle) -> None:
    for candidate in candidates_of(bundle):
        with candidate.open(bundle) as engine:
            assert sample_agreement(bundle, engine) >= min_agreement(bundle, candidate)


def test_the_graph_for_tensorrt_obeys_every_rule_and_is_judged_in_exact_arithmetic(bundle: Bundle) -> None:
    master = bundle.members["int8.onnx"]
    assert [finding for finding in lint(master) if finding.rule.level == "error"] == []
    assert quantized_products(master)[0] >= 3
    (depthwise,) = [node for node in onnx.load_from_string(master).graph.node if node.output[0] == "c2"]
    assert not [name for name in depthwise.input if "dequantized" in name]
    accuracy = bundle.variant("int8").accuracy["exact"]
    assert accuracy.disagreement is not None
    assert accuracy.disagreement <= 0.005
    for name in ("int8", "int8-fp16"):  # what a device has to reproduce of the samples, nearly
        samples = bundle.variant(name).accuracy["exact"].samples
        assert samples is not None
        assert samples > 0.9
        assert min_agreement(bundle, Candidate("tensorrt", name)) == pytest.approx(samples - 0.01)


def test_nvidias_compiler_takes_both_graphs_and_runs_their_convolutions_in_int8(bundle: Bundle) -> None:
    pytest.importorskip("tensorrt_rtx_bindings")
    wanted = quantized_products(bundle.members["int8.onnx"])[0]
    for member in ("int8.onnx", "int8-fp16.onnx"):
        build = build_rtx(bundle.members[member], RtxOptions(compute_capabilities=(86,)))
        audit = build.plans[0].audit
        assert audit is not None
        assert sum(one.data_type == "int8" for one in audit.convolutions.values()) == wanted


def test_every_graph_for_tensorrt_takes_batches_and_tells_a_device_what_to_expect(bundle: Bundle) -> None:
    files = {variant.file for variant in bundle.manifest.variants if "tensorrt" in variant.targets}
    assert files >= {"model.onnx", "int8.onnx", "int8-fp16.onnx", "int8-ranges.onnx"}
    assert all(Graph(bundle.members[file]).has_open_batch for file in files)
    for name in ("int8", "int8-fp16", "int8-ranges"):  # a device reproduces of the samples what was reproduced here
        agreement = bundle.variant(name).accuracy["exact"].samples
        assert agreement is not None
        assert 0.95 < agreement < 1
    assert bundle.variant("float").targets == ("onnxruntime", "openvino", "tensorrt")
    assert bundle.variant("float-cut").targets == ("onnxruntime", "openvino")


def test_the_graph_for_dla_is_float_and_its_ranges_are_of_its_tensors(bundle: Bundle) -> None:
    content = bundle.members["int8-ranges.onnx"]
    assert quantized_products(content)[0] == 0
    document = json.loads(bundle.members["int8-ranges.json"])
    assert document["format"] == 1
    named = [*document["ranges"], *document["float"]]
    made = {name for node in Graph(content).nodes for name in node.output}
    assert named
    assert made >= set(named)
    assert "c2" not in document["float"]  # depthwise: DLA computes it, the other graphs for TensorRT have it float
    accuracy = bundle.variant("int8-ranges").accuracy["exact"]
    assert accuracy.disagreement is not None
    assert accuracy.disagreement <= 0.005
    assert _report(bundle)["dla"]["written"]


def test_a_plan_without_layers_for_dla_is_refused_before_any_work(bundle: Bundle, folder: Path) -> None:
    document = _report(bundle)
    document["plan"]["dla"] = None
    (folder / "old.json").write_text(json.dumps(document))
    with pytest.raises(UsageError, match=r"names no layers for DLA.*without --plan"):
        QuantizationRequest(frames_uri=CALIB, dla=True, plan=read_plan(folder / "old.json"))


def test_the_report_says_where_everything_comes_from(bundle: Bundle) -> None:
    report = _report(bundle)
    table = parse_table(bundle.members["calibration.json"], "calibration.json")
    assert report["frames"]["calibration_sha256"] == table.frames_sha256
    assert len(report["frames"]["calibration"]) == table.frames
    calibration, verification = report["frames"]["calibration"], report["frames"]["verification"]
    distances = [abs(one - other) for one in calibration for other in verification]
    assert min(distances) >= report["frames"]["gap"] > 0
    page = bundle.members["report.html"].decode()
    assert re.findall(r'(?:src|href)="(?!data:)', page) == []  # one file, no network
    assert page.count("<figure>") >= 1
    assert all(group["signal_to_noise_db"] is not None for group in report["groups"] if group["int8_in"])


def test_a_recorded_plan_gives_the_same_bytes(bundle: Bundle, request_for: ExportRequest, folder: Path) -> None:
    plan_file = folder / "report.json"
    plan_file.write_bytes(bundle.members["report.json"])
    assert request_for.quantization is not None
    again = replace(
        request_for,
        out=folder / "again.vidseg",
        quantization=replace(request_for.quantization, plan=read_plan(plan_file), cache=None),
    )
    export_model(again)
    repeated = open_bundle(again.out)
    graphs = {name for name in bundle.members if name.endswith(".onnx")}
    assert graphs == {name for name in repeated.members if name.endswith(".onnx")}
    assert graphs >= {"model.onnx", "int8.onnx", "int8-fp16.onnx", "int8-ranges.onnx"}
    for name in [*graphs, "int8-ranges.json", "calibration.json"]:
        assert repeated.members[name] == bundle.members[name], name


def test_an_interrupted_export_goes_on_from_its_calibration(
    bundle: Bundle, request_for: ExportRequest, folder: Path
) -> None:
    stages: list[str] = []

    def stop_at_noise(name: str, _ticks: int) -> Callable[[], None]:
        stages.append(name)
        if name == "noise of each group":
            raise KeyboardInterrupt
        return lambda: None

    out = folder / "interrupted.vidseg"
    with pytest.raises(KeyboardInterrupt):
        export_model(replace(request_for, out=out), stage=stop_at_noise)
    assert "calibration of an export before" in stages
    assert "calibrating" not in stages
    assert not out.exists()
    assert "calibration.json" in bundle.members


@pytest.mark.parametrize("planned", [False, True])
def test_a_budget_of_nothing_leaves_float(
    bundle: Bundle, request_for: ExportRequest, folder: Path, planned: bool
) -> None:
    plan_file = folder / "loose.json"
    plan_file.write_bytes(bundle.members["report.json"])
    assert request_for.quantization is not None
    quantization = replace(
        request_for.quantization,
        budget=Budget(max_disagreement=0.0),
        plan=read_plan(plan_file) if planned else None,
    )
    out = folder / f"strict{planned}.vidseg"
    export_model(replace(request_for, out=out, quantization=quantization))
    strict = open_bundle(out)
    for target in _report(strict)["targets"].values():
        assert not target["written"] or target["disagreement"] == 0
    for variant in strict.manifest.variants:
        assert all(not accuracy.disagreement for accuracy in variant.accuracy.values())


def test_labelled_pictures_are_judged_by_mean_iou(request_for: ExportRequest, folder: Path) -> None:
    street = Street(5, SIZE_WH)
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for number in range(6):
        image, labels = street.render(number * 30, float(number))
        cv2.imwrite(str(folder / f"images/{number}.png"), image)
        cv2.imwrite(str(folder / f"labels/{number}.png"), np.where(labels < 4, labels, 255).astype(np.uint8))
    assert request_for.quantization is not None
    quantization = replace(request_for.quantization, images=folder / "images", labels=folder / "labels")
    out = folder / "labelled.vidseg"
    export_model(replace(request_for, out=out, samples=False, quantization=quantization))
    report = _report(open_bundle(out))
    assert report["float"]["mean_iou"] is not None
    assert report["frames"]["verification"] == "6 labelled pictures"
    for target in report["targets"].values():
        assert not target["written"] or report["float"]["mean_iou"] - target["mean_iou"] <= 0.005
    assert b"data:image" not in open_bundle(out).members["report.html"]  # no pictures where nobody wants them


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("scene://street?pace=max&fps=1&frames=3&size=96x64", "too few"),
        ("scene://street", "live"),
    ],
)
def test_without_enough_frames_nothing_is_written(
    request_for: ExportRequest, folder: Path, uri: str, message: str
) -> None:
    out = folder / "none.vidseg"
    with pytest.raises((ConfigurationError, UsageError), match=message) as caught:
        export_model(replace(request_for, out=out, quantization=QuantizationRequest(frames_uri=uri)))
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_a_compiler_that_is_not_there_is_asked_for_before_any_work(
    request_for: ExportRequest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"does not compile.*1\.0"):
        QuantizationRequest(frames_uri=CALIB, compute_capabilities=(10,))
    monkeypatch.setattr(rtx, "COMPILER", "no_such_module")
    stages: list[str] = []
    request = QuantizationRequest(frames_uri=CALIB, compute_capabilities=(86,))
    with pytest.raises(ConfigurationError, match="compiler"):
        export_model(replace(request_for, out=folder / "x.vidseg", quantization=request), stages.append)
    assert stages == []


def test_frames_that_are_labelled_pictures_are_told_of(request_for: ExportRequest, folder: Path) -> None:
    for name in ("near-images", "near-labels", "clip"):
        (folder / name).mkdir()
    street = Street(9, SIZE_WH)
    for number in range(24):
        image, labels = street.render(number * 30, float(number))
        cv2.imwrite(str(folder / f"clip/{number:02}.png"), image)
        if number % 4 == 0:
            cv2.imwrite(str(folder / f"near-images/{number}.png"), image)
            cv2.imwrite(str(folder / f"near-labels/{number}.png"), np.where(labels < 4, labels, 255).astype(np.uint8))
    quantization = QuantizationRequest(
        frames_uri=str(folder / "clip"), frames=8, images=folder / "near-images", labels=folder / "near-labels"
    )
    lines: list[str] = []
    export_model(replace(request_for, out=folder / "near.vidseg", quantization=quantization), lines.append)
    assert any("6 frames are nearly labelled pictures" in line for line in lines)
    assert any("calibrating on 8 frames, verifying with 6 labelled pictures" in line for line in lines)


def test_only_one_of_the_two_folders_is_a_usage_error(folder: Path) -> None:
    with pytest.raises(UsageError, match="both folders"):
        QuantizationRequest(frames_uri=CALIB, images=folder)


def test_a_device_that_computes_otherwise_refuses_the_variant(bundle: Bundle) -> None:
    """As a processor does whose 8-bit sums overflow: it gives other classes than where the bundle was made."""
    int8 = [candidate for candidate in candidates_of(bundle) if candidate.variant.startswith("int8-")]
    for candidate in int8:
        assert min_agreement(bundle, candidate) > 0.9
    with candidates_of(bundle)[0].open(bundle) as engine:
        wrong = [np.roll(predict(engine, image).class_map, 7, axis=1) for image, _ in bundle.samples()]
    found = np.mean([(one == wanted).mean() for one, (_, wanted) in zip(wrong, bundle.samples(), strict=True)])
    assert all(found < min_agreement(bundle, candidate) for candidate in int8)
