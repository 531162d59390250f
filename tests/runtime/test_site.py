"""A configuration that is half understood watches the wrong camera; one whose errors show passwords gives them away."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidseg.runtime.errors import ConfigurationError
from vidseg.runtime.pipeline.opening import OpenOptions
from vidseg.runtime.site import read_site, sinks_of, sources_of, with_secrets, with_site

SITE = """
bundle: model.vidseg
engine: openvino
deadline_ms: 200
hang_s: 30
sources:
  gate:
    uri: rtsp://admin:${GATE_PASSWORD}@camera/live
    required: true
    roi: [0, 0.25, 1, 0.75]
    ignore: [[[0, 0], [0.5, 0], [0.5, 0.5]]]
  yard:
    uri: scene://street?frames=4&pace=max
sinks: [out.jsonl]
zones:
  crossing: [[0.2, 0.5], [0.8, 0.5], [0.8, 1]]
events:
  crowd: {class: person, above: 0.2, zone: crossing, after_ms: 500}
"""


def written(folder: Path, text: str = SITE) -> Path:
    path = folder / "site.yaml"
    path.write_text(text)
    return path


def test_all_that_it_says_is_heeded_and_what_was_given_goes_before_it(tmp_path: Path) -> None:
    site = read_site(written(tmp_path))
    options = with_site(OpenOptions(engine="onnxruntime"), site, {"engine"})
    assert (options.engine, options.deadline_ms, options.hang_s, options.retry) == ("onnxruntime", 200, 30, "always")
    assert options.required == {"gate"}
    assert options.views["gate"].roi == (0, 0.25, 1, 0.75)
    assert list(options.views) == ["gate"]
    assert [zone.name for zone in options.report.zones] == ["crossing"]
    (rule,) = options.report.rules
    assert (rule.name, rule.class_name, rule.zone, rule.after_ms) == ("crowd", "person", "crossing", 500)
    gate, yard = sources_of(site, {"GATE_PASSWORD": "p@ss/w?rd#["})
    assert (gate.name, gate.live, yard.name, yard.live) == ("gate", True, "yard", False)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("bundle:", "bundel:"), "unknown field `bundel`"),
        (("engine: openvino", "engine: cuda"), "engine is not understood"),
        (("deadline_ms: 200", "deadline_ms: -1"), "deadline_ms is not understood"),
        (("roi: [0, 0.25, 1, 0.75]", "roi: [0, 0.25, 1]"), "roi is not understood"),
        (("roi: [0, 0.25, 1, 0.75]", "roi: [0, 0.5, 1, 0.75]"), "lies outside of the picture"),
        (("  yard:", "  gate:"), "the key 'gate' is there twice"),
        (("[0.8, 0.5], [0.8, 1]]", "[0.8, 0.5]]"), "zone 'crossing' is no polygon"),
        (("above: 0.2", "above: 0"), "event 'crowd' makes no sense"),
        (("  gate:", "  ../gate:"), "is not understood"),
        (("engine: openvino", "engine: hunter2"), "engine is not understood: got Invalid enum value."),
        (("hang_s: 30", "hunter2@camera: 1"), "it is not understood: got Object contains unknown field."),
        (("hang_s: 30", "bundle: !!int hunter2"), "is no YAML"),
        (("  gate:", '  "gate\\n":'), "is no YAML"),
        (("sources:", "sources: &all"), ""),
        (("sinks: [out.jsonl]", "sinks: *all"), "is no YAML"),
    ],
)
def test_what_is_wrong_is_one_line_that_says_where(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    path = written(tmp_path, SITE.replace(*change))
    if not said:
        read_site(path)
        return
    with pytest.raises(ConfigurationError) as caught:
        with_site(OpenOptions(), read_site(path), frozenset())
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_missing_too_large_or_no_yaml_is_an_error(tmp_path: Path) -> None:
    for content in (b"\xff\xfe", b"- [", b"x: " + b"a" * (2 << 20), b"[" * 100_000, b"7"):
        (tmp_path / "bad.yaml").write_bytes(content)
        with pytest.raises(ConfigurationError):
            read_site(tmp_path / "bad.yaml")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_site(tmp_path / "none.yaml")


def test_secrets_come_from_the_environment_or_a_file_and_are_in_no_message(tmp_path: Path) -> None:
    secret = tmp_path / "camera"
    secret.write_text("se cret\nmore\n")
    found = with_secrets(f"rtsp://${{WHO}}:${{file:{secret}}}@camera/$${{x}}", {"WHO": "me"}, "source gate")
    assert found == "rtsp://me:se cret@camera/${x}"
    secret.write_text("\n")
    for text in ("${NONE}", "${file:/none}", f"${{file:{secret}}}", "${a b}", "${}", "${file:a\0b}"):
        with pytest.raises(ConfigurationError, match="source gate") as caught:
            with_secrets(f"rtsp://${{WHO}}:hidden@{text}", {"WHO": "hidden too"}, "source gate")
        assert "hidden" not in str(caught.value)


@given(st.text(max_size=200))
def test_any_text_is_a_site_or_one_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    with pytest.raises(ConfigurationError):
        read_site(path)


@pytest.mark.timeout(60)
def test_the_command_runs_a_site(tmp_path: Path) -> None:
    text = SITE.replace("bundle: model.vidseg\n", "").replace("rtsp://admin:${GATE_PASSWORD}@camera/live", "${GATE}")
    text = text.replace("engine: openvino", "engine: onnxruntime").replace("deadline_ms: 200\n", "")
    written(tmp_path, text)
    done = subprocess.run(
        [sys.executable, "-m", "vidseg", "run", "--config", "site.yaml"], cwd=tmp_path, check=False, timeout=50,
        env=os.environ | {"GATE": "scene://street?frames=4&pace=max&seed=3"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {line["source"] for line in lines} == {"gate", "yard"}
    assert len(lines) == 8
    assert all("crossing" in line["zones"] for line in lines)


def test_a_page_gets_its_token_from_the_environment(tmp_path: Path) -> None:
    """Taken as it stands, a token of `${PAGE_TOKEN}` would let everybody in who reads the documentation."""
    path = tmp_path / "site.yaml"
    path.write_text("sources: {}\nsinks: ['web://0.0.0.0:8080#token=${PAGE_TOKEN}', out.jsonl]\n")
    site = read_site(path)
    assert sinks_of(site, {"PAGE_TOKEN": "0123456789abcdef"}) == [
        "web://0.0.0.0:8080#token=0123456789abcdef",
        "out.jsonl",
    ]
    with pytest.raises(ConfigurationError, match="sink 1: the variable PAGE_TOKEN is not set"):
        sinks_of(site, {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sources: {gate: {uri: a.mp4}, yard: {uri: b.mp4, roi: [0, 0, 2, 1]}}", "sources.yard.roi"),
        ("sources: {Tür: {uri: a.mp4}}", "begin with a letter or a digit"),
        ("sources: {}\nevents: {crowd: {class: car, above: 7}}", "events.crowd.above"),
    ],
)
def test_an_error_names_the_camera_that_it_is_about(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "site.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        read_site(tmp_path / "site.yaml")
