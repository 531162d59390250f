"""What the other pages list, tried out: a name or an option that is not taken sends a reader away."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer

from tests.export.models import write_model
from tests.reader_material import run, write_clip
from tests.tiny_models import write_tiny_bundle
from vidseg.cli import app
from vidseg.runtime.site import read_site

ROOT = Path(__file__).parents[1]
PAGES = {path.name: path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
SIZE_WH = (64, 48)


def _first_column(page: str, section: str) -> list[str]:
    """What the first column of a section's table has in code."""
    text = PAGES[page].split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `(.*?)` \|", text, flags=re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tiny_bundle(tmp_path / "tiny.vidseg", SIZE_WH)
    write_clip(tmp_path / "clip.mp4", 10, SIZE_WH)
    (tmp_path / "images").mkdir()
    for name in ("image.png", "images/1.png", "images/2.png"):
        cv2.imwrite(str(tmp_path / name), np.full((SIZE_WH[1], SIZE_WH[0], 3), 90, np.uint8))
    return tmp_path


def test_every_source_and_sink_that_needs_no_device_is_taken(folder: Path) -> None:
    names = _first_column("sources-and-sinks.md", "Sources")
    endless = ("/dev/", "rtsp://")
    sources = [name for name in names if not name.startswith(endless) and name != "scene://street"]
    sinks = [name for name in _first_column("sources-and-sinks.md", "Sinks") if name != "window://"]
    sinks = [name.replace(":8080", ":0") for name in sinks if not name.startswith("rtsp://")]  # any port that is free
    assert (len(sources), len(sinks)) == (4, 6)
    options = [part for name in sources for part in ("--source", name)]
    options += [part for name in sinks for part in ("--sink", name)]
    done = run(["vidseg", "run", "tiny.vidseg", *options], folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "out.mp4").stat().st_size > 1000
    assert len(list((folder / "masks").rglob("*.png"))) == 10 + 2 + 1 + 100


def test_every_way_of_describing_the_input_is_taken(folder: Path) -> None:
    write_model(folder / "model.onnx")
    (folder / "classes.txt").write_text("a\nb\nc\nd\n")
    rows = re.findall(r"^\| .* \| (?:none|`(--.*)`) \|$", PAGES["export.md"], flags=re.MULTILINE)
    assert len(rows) == 4
    for number, options in enumerate(rows):
        command = f"vidseg export model.onnx --labels classes.txt --frames clip.mp4 --out {number}.vidseg {options}"
        done = run(shlex.split(command), folder)
        assert done.returncode == 0, f"{command}\n{done.stderr}"


def test_every_option_that_a_page_names_is_there() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # a group has them
    there = {"--help"} | {
        option
        for command in commands.values()
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    for page, text in PAGES.items():
        code = "\n".join(re.findall(r"`([^`]+)`", text.replace("```", "`"))).replace("\\\n", " ")
        ours = "\n".join(line for line in code.splitlines() if line.lstrip().startswith(("vidseg", "--")))
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", ours))
        assert named <= there, page


def test_every_configuration_of_a_page_is_understood(tmp_path: Path) -> None:
    """Also the one that the service runs."""
    found = 0
    for page in ("site.md", "systemd.md", "web.md", "recording.md"):
        for text in re.findall(r"```yaml\n(.*?)```", PAGES[page], flags=re.DOTALL):
            if "sources:" in text:
                (tmp_path / "site.yaml").write_text(text)
                assert read_site(tmp_path / "site.yaml").sources
                found += 1
    assert found >= 2
    unit = (ROOT / "deploy/systemd/vidseg.service").read_text()
    assert "vidseg run --config /etc/vidseg/site.yaml" in unit
