"""A recorded plan that is read as another one makes another model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidseg.export.plan import Plan, read_plan
from vidseg.runtime.engines.opening import EngineName
from vidseg.runtime.errors import ConfigurationError

names = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=4).map(tuple)
engines = st.sampled_from(["openvino", "onnxruntime"])
PLAN = Plan(
    calibration_engine="openvino",
    accurate=("a", "b"),
    targets={"openvino": ("a", "b"), "onnxruntime": ("a",)},
    tensorrt=("b",),
)


@given(
    st.builds(
        Plan,
        calibration_engine=engines,
        accurate=names,
        targets=st.dictionaries(engines, names),
        tensorrt=names,
        dla=st.none() | names,
    )
)
def test_a_plan_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, plan: Plan) -> None:
    path = tmp_path_factory.getbasetemp() / "plan.json"
    path.write_bytes(msgspec.json.encode(plan))
    assert read_plan(path) == plan
    path.write_bytes(msgspec.json.encode({"verdict": "int8", "plan": plan}))
    assert read_plan(path) == plan


def test_a_plan_of_another_model_or_for_engines_that_are_not_here_is_refused() -> None:
    here: tuple[EngineName, ...] = ("openvino", "onnxruntime")
    PLAN.check("model", ["a", "b", "c"], here)
    with pytest.raises(ConfigurationError, match=r"of another model.*'b'"):
        PLAN.check("model", ["a"], here)
    with pytest.raises(ConfigurationError, match=r"not installed.*openvino"):
        PLAN.check("model", ["a", "b"], ["onnxruntime"])
    with pytest.raises(ConfigurationError, match=r"of another model.*'d'"):
        msgspec.structs.replace(PLAN, dla=("a", "d")).check("model", ["a", "b"], here)


def test_a_plan_from_before_there_was_dla_is_read(tmp_path: Path) -> None:
    document = msgspec.to_builtins(PLAN)
    del document["dla"]
    (tmp_path / "plan.json").write_text(json.dumps(document))
    assert read_plan(tmp_path / "plan.json") == PLAN


def plain(**changes: Any) -> str:
    return json.dumps(msgspec.to_builtins(PLAN) | changes)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"plan": null}',
        "[" * 100_000,
        plain(calibration_engine="tensorrt"),
        plain(accurate="a"),
        plain(accurate=[1]),
        plain(targets={"abacus": []}),
        plain(surprise=1),
        '{"plan": {"plan": {}}}',
        b"\xff\xfe".decode("latin-1"),
    ],
)
def test_what_is_no_plan_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigurationError, match=r"plan\.json: not a plan") as caught:
        read_plan(path)
    assert "\n" not in str(caught.value)


def test_a_plan_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.json: there is no such file\. Take report\.json"):
        read_plan(tmp_path / "none.json")
    with pytest.raises(ConfigurationError, match="not a plan: got a folder"):
        read_plan(tmp_path)


def test_another_report_is_told_from_a_damaged_plan(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    for text, message in (
        ('{"mean_iou": 0.5}', r"got JSON that has no `plan`\. Take report\.json of an export with --calib"),
        (plain(accurate="a"), "Expected `array`"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigurationError, match=message):
            read_plan(path)
