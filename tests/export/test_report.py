"""People trust INT8 by the report: with a number that was not measured, or no reason given, they should not."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.export.quantizable import SCORES, SIZE_WH, core_groups, images, quantizable, ranges_of_kind
from vidseg.calibration.gate import Budget, Comparison, compare
from vidseg.calibration.sensitivity import GroupNoise
from vidseg.calibration.table import FORMAT, CalibrationTable, TensorRange
from vidseg.export.graph import Graph
from vidseg.export.groups import find_groups
from vidseg.export.plan import Plan
from vidseg.export.qdq import quantize
from vidseg.export.quantization import Quantization
from vidseg.export.quantized_model import DlaResult, FloatModel, MasterResult, QuantizedModel, TargetResult
from vidseg.export.references import float_references
from vidseg.export.report import report_document, report_lines
from vidseg.export.report_page import report_page
from vidseg.export.runner import GraphRunner
from vidseg.export.search import AccuracyGate
from vidseg.runtime.engines import Engine
from vidseg.runtime.manifest import ClassSpec
from vidseg.runtime.segmenter import Segmenter

ODD = "<b>&\"'name'"
NAMES = (ODD, "road", "car", "tree", "sky")
CLASSES = [ClassSpec(name=name, color_rgb=(10 * number, 40, 200)) for number, name in enumerate(NAMES)]
MODEL = FloatModel("test", quantizable("residual"), SCORES, 1, probabilities=False, upsampling=None, size_wh=SIZE_WH)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def _compared(engine: Engine, gate: AccuracyGate) -> Comparison:
    return compare(Segmenter(engine, gate.fit), gate.references)


@cache
def measured() -> Quantization:
    """A small model in one engine, quantized as far as it goes; times and accuracy are made up, all different."""
    graph = Graph(MODEL.content)
    groups, names = find_groups(graph), tuple(group.name for group in core_groups(graph))
    ranges = ranges_of_kind("residual")
    content = quantize(graph, core_groups(graph), ranges)
    references = float_references(GraphRunner("test", "onnxruntime"), MODEL, "stretch", images(6), lambda: None)
    nothing = Comparison(0, 0.0, 0.0, np.zeros(0))
    gate = AccuracyGate(references, nothing, None, Budget(), NAMES, "stretch")
    with MODEL.opener(MODEL.content, "onnxruntime", None, "fp32")() as engine:
        gate = replace(gate, float_result=_compared(engine, gate))
    with MODEL.opener(content, "onnxruntime", None)() as engine:
        comparison = replace(_compared(engine, gate), agreement=0.98765, disagreement=0.00123)
    times = {"float": 2.3456, "int8": 1.1234}
    target = TargetResult("onnxruntime", content, names, comparison, (), {}, times, fastest_float_ms=2.3456)
    tensors = {
        name: TensorRange(amax={"max": amax, "mse": amax / 2}, method="mse", signed=True)
        for name, amax in ranges.amax.items()
    }
    table = CalibrationTable(
        format=FORMAT, model_sha256="0" * 64, frames_sha256="1" * 64, frames=4, tensors=tensors
    )  # fmt: skip
    noise = [GroupNoise(name, 10.0**-number, 0.5) for number, name in enumerate(names, 1)]
    exact, half = replace(comparison, agreement=0.97654), replace(comparison, disagreement=0.00234)
    master = MasterResult(content, content, names[:1], exact, half)
    model = QuantizedModel(table, groups, names, noise, {}, names, [(len(names), [])], [target], master, "")
    frames = {
        "source": f"{ODD}.mp4", "counts": "9 read", "calibration": [0, 1, 2, 3], "calibration_sha256": "1" * 64,
        "verification": [20, 21, 22, 23, 24, 25], "verification_sha256": "2" * 64, "gap": 16,
    }  # fmt: skip
    plan = Plan(calibration_engine="onnxruntime", accurate=names, targets={"onnxruntime": names}, tensorrt=names[:1])
    return Quantization(model, frames, gate, (), {}, plan, pictures=dict(enumerate(images(6))))


def with_targets(found: Quantization, *targets: TargetResult, **facts: Any) -> Quantization:
    return replace(found, model=replace(found.model, targets=targets, **facts))


def with_target(**facts: Any) -> Quantization:
    found = measured()
    return with_targets(found, replace(found.model.targets[0], **facts))


def with_labels(found: Quantization) -> Quantization:
    """As if the frames were labelled; nobody ever saw the last class."""

    def scored(comparison: Comparison, drop: float) -> Comparison:
        iou = np.array([0.9, 0.8, 0.7, 0.6, np.nan]) - drop
        return replace(comparison, iou=iou, boundary_f=0.5, class_shares=np.array([0.4, 0.3, 0.2, 0.1, 0.0]))

    master = found.model.master
    assert master is not None
    half = scored(master.comparison, 0.003)
    master = replace(master, comparison=scored(master.comparison, 0.002), half_comparison=half)
    targets = [replace(target, comparison=scored(target.comparison, 0.001)) for target in found.model.targets]
    labelled = with_targets(found, *targets, master=master)
    frames = {**found.frames, "verification": "6 labelled pictures", "verification_sha256": None, "gap": None}
    return replace(labelled, frames=frames, gate=replace(found.gate, float_result=scored(found.gate.float_result, 0)))


def document_of(found: Quantization) -> dict[str, Any]:
    """As any reader of JSON gets it: one without NaN and Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    document: dict[str, Any] = json.loads(json.dumps(report_document(found)), parse_constant=refuse)
    return document


def page_of(found: Quantization, *, pictures: bool = False) -> str:
    with ExitStack() as stack:
        engines = []
        if pictures and found.shown is not None:
            for content, precision in ((MODEL.content, "fp32"), (found.shown.content, "int8")):
                engines.append(stack.enter_context(MODEL.opener(content, "onnxruntime", None, precision)()))
        return report_page(found, document_of(found), ODD, engines, CLASSES)


class Page(HTMLParser):
    """What a browser makes of a page: its text, tables by heading, and links."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: dict[str, list[str]] = {}  # by the element that they are in
        self.tables: dict[str, list[list[str]]] = {}
        self.links: list[str] = []
        self.elements: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "data", "action"}]
        if tag not in {"meta", "img"}:
            self._open.append(tag)
        heading = self.texts.get("h2", [""])[-1]
        if tag == "table":
            self.tables[heading] = []
        elif tag == "tr":
            self.tables[heading].append([])
        elif tag in {"td", "th"}:
            self.tables[heading][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        tag = self._open[-1] if self._open else ""
        if tag in {"td", "th"}:
            self.tables[self.texts["h2"][-1]][-1][-1] += data
        else:
            self.texts.setdefault(tag, []).append(data)

    def rows(self, heading: str) -> dict[str, dict[str, str]]:
        """A table's cells by their row's first cell and their column's head."""
        head, *rows = self.tables[heading]
        assert all(len(row) == len(head) for row in rows)
        return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


@pytest.mark.parametrize("labelled", [False, True])
def test_the_variants_on_the_page_are_those_of_the_document(labelled: bool) -> None:
    found = with_labels(measured()) if labelled else measured()
    document = document_of(found)
    rows = Page(page_of(found)).rows("Variants")
    assert list(rows) == [*document["targets"], "TensorRT", "TensorRT, float16"]
    master = document["tensorrt"]
    wanted = {**document["targets"], "TensorRT": master, "TensorRT, float16": {**master, **master["fp16"]}}
    for name, row in rows.items():
        facts = wanted[name]
        times = facts.get("latency_ms", {})
        assert row["Outcome"].startswith("written")
        assert row["INT8 share of multiply-adds"] == f"{facts['int8_share_of_macs']:.1%}"
        for variant in ("float", "float-cut", "int8", "int8-cut"):
            assert row[f"{variant} ms"] == (f"{times[variant]:.1f}" if variant in times else "–")
        assert row["Same class"] == f"{facts['agreement']:.2%}"
        assert row["Other class where float is sure"] == f"{facts['disagreement']:.3%}"
        mean = f"{facts['mean_iou']:.4f} for {document['float']['mean_iou']:.4f}" if labelled else "–"
        assert row["Mean IoU"] == mean


def test_the_graph_for_dla_is_reported_where_somebody_asked_for_it() -> None:
    found = with_labels(measured())
    assert document_of(found)["dla"] is None
    master = found.model.master
    assert master is not None
    dla = DlaResult(b"", b"", b"", master.groups, master.comparison)
    page = Page(page_of(replace(found, model=replace(found.model, dla=dla))))
    assert page.rows("Variants")["TensorRT, DLA"] == page.rows("Variants")["TensorRT"]
    assert set(page.rows("IoU by class")["road"]) >= {"INT8 TensorRT", "INT8 DLA"}
    refused = replace(found, model=replace(found.model, no_dla="it loses more than the budget"))
    assert "DLA: not written: it loses more than the budget" in report_lines(refused)
    row = Page(page_of(refused)).rows("Variants")["TensorRT, DLA"]
    assert row["Outcome"] == "not written: it loses more than the budget"


def test_the_layers_on_the_page_are_those_of_the_document() -> None:
    found = measured()
    document = document_of(found)
    rows = Page(page_of(found)).rows("Layers, the noisiest first")
    groups = {group["name"]: group for group in document["groups"]}
    total = sum(group["macs"] for group in groups.values())
    assert set(rows) == set(groups) > set(found.model.candidates)
    noise = [row["Signal to noise, dB"] for row in rows.values()]
    shown = [float(value) for value in noise if value != "–"]
    assert shown == sorted(shown)
    assert set(noise[len(shown) :]) == {"–"}
    for name, row in rows.items():
        group = groups[name]
        if name not in found.model.candidates:
            assert row["Float because"] == group["float_because"] != ""
            continue
        assert row["Signal to noise, dB"] == f"{group['signal_to_noise_db']:.1f}"
        assert row["Share of multiply-adds"] == f"{group['macs'] / total:.1%}"
        assert row["Range"] == ", ".join(f"mse {entry['amax']:.3g}" for entry in group["ranges"].values())
        assert row["INT8 in"] == "onnxruntime"


def test_the_document_says_what_was_measured() -> None:
    found = measured()
    document, target = document_of(found), found.model.targets[0]
    facts = document["targets"]["onnxruntime"]
    assert facts["agreement"] == pytest.approx(target.comparison.agreement, abs=1e-6)
    assert facts["disagreement"] == pytest.approx(target.comparison.disagreement, abs=1e-6)
    assert facts["latency_ms"] == {"float": 2.346, "int8": 1.123}
    assert facts["worst_frame"] == target.comparison.frame_disagreement.argmax()
    assert document["int8_share_of_macs"] == facts["int8_share_of_macs"] == pytest.approx(
        sum(group.macs for group in found.model.groups if group.name in target.groups)
        / sum(group.macs for group in found.model.groups), abs=1e-4,
    )  # fmt: skip
    assert document["plan"]["targets"] == {"onnxruntime": list(target.groups)}
    for group in document["groups"]:
        assert (group["name"] in target.groups) == (group["int8_in"] == ["onnxruntime"])
        assert bool(group["int8_in"]) != bool(group["float_because"])


def test_all_classes_are_in_the_table_and_one_that_nobody_saw_has_no_iou() -> None:
    found = with_labels(measured())
    rows = Page(page_of(found)).rows("IoU by class")
    assert list(rows) == list(NAMES)
    ious = document_of(found)["targets"]["onnxruntime"]["iou"]
    for name, row, before, after in zip(NAMES, rows.values(), (0.9, 0.8, 0.7, 0.6), ious, strict=False):
        exact = f"{before - 0.002:.4f}"
        assert row == {"float": f"{before:.4f}", "INT8 onnxruntime": f"{after:.4f}", "INT8 TensorRT": exact}, name
    assert set(rows["sky"].values()) == {"–"}
    assert "IoU by class" not in Page(page_of(measured())).tables


def test_the_verdict_int8_says_how_much_and_how_fast() -> None:
    found = measured()
    share = document_of(found)["int8_share_of_macs"]
    line = report_lines(found)[0]
    assert found.verdict == document_of(found)["verdict"] == "int8"
    assert line.startswith(f"Verdict: int8. {share:.0%} of the multiply-adds in INT8, 2.09 times the speed")
    assert "onnxruntime" in line
    assert '<p class="verdict int8">' in page_of(found)


def test_the_verdict_mixed_names_each_layer_that_stays_float_and_why() -> None:
    names = measured().model.candidates
    idle = with_target(groups=names[:1], useless={"a family": names[1:]})
    costly = with_target(groups=names[:1])
    for found, reason in ((idle, "gains nothing"), (costly, "costs too much accuracy")):
        line = report_lines(found)[0]
        assert line.endswith(f"; {len(names) - 1} layer in float, {reason}")
        assert found.verdict == document_of(found)["verdict"] == "mixed"
        assert line.startswith(f"Verdict: mixed. {found.model.share_of_macs(names[:1]):.0%} of the multiply-adds")
        rows = Page(page_of(found)).rows("Layers, the noisiest first")
        assert {name for name in names if rows[name]["INT8 in"] == "nowhere"} == set(names[1:])
        assert all(reason in rows[name]["Float because"] for name in names[1:])
        assert rows[names[0]]["Float because"] == ""


SLOW: dict[str, Any] = {"latency_ms": {"float": 1.0, "int8": 3.0}, "fastest_float_ms": 1.0}
COSTLY: dict[str, Any] = {"faults": ("2.00 % of the pixels differ where float is sure, 0.5 % may",)}


@pytest.mark.parametrize(("facts", "reason"), [(SLOW, "is not clearly faster"), (COSTLY, "loses more than the budget")])
def test_the_verdict_float_says_why_int8_is_not_written(facts: dict[str, Any], reason: str) -> None:
    found = with_target(**facts)
    document, lines = document_of(found), report_lines(found)
    page = Page(page_of(found))
    assert found.verdict == document["verdict"] == "float"
    assert document["chosen"] is None
    assert document["int8_share_of_macs"] == 0
    assert lines[0].startswith("Verdict: float. ")
    assert reason in lines[0]
    assert any(line.startswith("onnxruntime: ") and f"not written: {reason}" in line for line in lines[1:])
    assert page.rows("Variants")["onnxruntime"]["Outcome"].startswith(f"not written: {reason}")
    assert lines[0] in page.texts["p"]


def test_a_faster_float_in_another_engine_counts() -> None:
    found = with_target(fastest_float_ms=0.9)
    assert found.verdict == "float"
    assert "is not clearly faster than the fastest float here, 0.9 ms" in report_lines(found)[0]


def test_the_verdict_float_says_where_no_layers_keep_the_accuracy() -> None:
    found = measured()
    empty = replace(found.model.targets[0], content=b"", groups=(), latency_ms={"float": 2.0})
    found = with_targets(found, empty, accurate=(), master=None, no_master="nothing is within the budget")
    assert report_lines(found)[0] == "Verdict: float. No set of INT8 layers keeps the accuracy."
    page = Page(page_of(found, pictures=True))
    assert page.rows("Variants")["onnxruntime"]["Same class"] == "–"  # nothing was compared
    assert page.rows("Variants")["TensorRT"]["Outcome"] == "not written: nothing is within the budget"
    assert "img" not in page.elements  # nothing was quantized that could be shown


def test_of_two_engines_the_fastest_decides() -> None:
    target = measured().model.targets[0]
    faster = replace(target, engine="openvino", groups=target.groups[:1], latency_ms={"float": 2.0, "int8": 0.5})
    found = with_targets(measured(), target, faster)
    assert document_of(found)["chosen"] == "openvino"
    assert found.verdict == "mixed"
    times = {"float": 0.1, "int8": 2.0}  # as with a recorded plan, which ships whatever the speed
    planned = with_targets(measured(), replace(target, planned=True), replace(faster, latency_ms=times, planned=True))
    assert document_of(planned)["chosen"] == "onnxruntime"
    refused = with_targets(measured(), target, replace(faster, faults=("too much",)))
    assert document_of(refused)["chosen"] == "onnxruntime"
    assert refused.verdict == "int8"


def test_names_with_markup_are_text() -> None:
    """A class that is named so must not change the page, or run anything in it."""
    found = with_labels(measured())
    model = replace(found.model, noise=[replace(found.model.noise[0], name=ODD)], groups=(
        replace(found.model.groups[1], name=ODD), *found.model.groups[2:]
    ))  # fmt: skip
    page = Page(page_of(replace(found, model=model, compiled={"refused": f"refuses {ODD}"}), pictures=True))
    assert "b" not in page.elements
    assert ODD in page.rows("IoU by class")
    assert ODD in page.rows("Layers, the noisiest first")
    assert f"refuses {ODD}" in "".join(page.texts["li"])
    for tag in ("h1", "title"):
        assert "".join(page.texts[tag]) == f"INT8 report: {ODD}"
    assert f"{ODD}.mp4" in "".join(page.texts["p"])


def test_the_worst_frames_are_shown_first_and_nothing_is_loaded_from_elsewhere() -> None:
    target = measured().model.targets[0]
    shares = np.array([0.0, 0.02, 0.01, 0.05, 0.0, 0.03])
    found = with_target(comparison=replace(target.comparison, frame_disagreement=shares))
    page = Page(page_of(found, pictures=True))
    captions = page.texts["figcaption"]
    assert [re.findall(r"frame (\d+): ([\d.]+)%", caption)[0] for caption in captions] == [
        ("3", "5.00"), ("5", "3.00"), ("1", "2.00"), ("2", "1.00"),
    ]  # fmt: skip
    assert document_of(found)["targets"]["onnxruntime"]["worst_frame"] == 3
    assert page.elements.count("img") == 4 * len(captions)
    assert all(link.startswith("data:image/jpeg;base64,") for link in page.links)
    assert not {"script", "link", "iframe", "object", "form", "base"} & set(page.elements)
    assert "url(" not in page_of(found)
    assert "@import" not in page_of(found)


def test_plans_of_nvidias_compiler_are_listed() -> None:
    plan = {
        "compute_capability": 86,
        "build_s": 1.25,
        "plan_bytes": 3 * 2**20,
        "audit": {},
        "summary": "8.6: 4 kernels",
    }
    found = replace(
        measured(), compiled={"version": "1.7.1", "plans": [plan, {**plan, "audit": None, "summary": None}]}
    )
    page = Page(page_of(found))
    assert "TensorRT-RTX 1.7.1, compiled with no GPU" in page.texts["h2"]
    assert page.texts["li"][0] == "8.6: 4 kernels; plan of 3.0 MiB, built in 1.25 s"
    assert "TensorRT-RTX: plan of 3.0 MiB. 8.6: 4 kernels" in report_lines(found)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.timeout(60)
def test_a_browser_shows_the_page_without_complaint(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(page_of(with_labels(measured()), pictures=True), encoding="utf-8")
    done = subprocess.run(
        [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom",
         f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "report.html").as_uri()],
        capture_output=True, text=True, timeout=50, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    assert Page(page_of(with_labels(measured()), pictures=True)).rows("Variants") == Page(done.stdout).rows("Variants")
