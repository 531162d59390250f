"""The pages for boards and containers: readers sit before a device that we had not, so nothing else may be wrong."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests import reader_material
from tests.reader_material import blocks, run
from vidseg.runtime.jetson import JETPACKS

ROOT = Path(__file__).parents[1]
JETSON, DOCKER = ((ROOT / f"docs/{name}.md").read_text() for name in ("jetson", "docker"))
SIZE_WH = (160, 120)
NO_GPU = {4, 6}
"""Exit codes of what needs one."""

pytestmark = pytest.mark.timeout(240)


def _lines(page: str) -> list[str]:
    """The commands of the shell blocks."""
    text = "\n".join(blocks(page, "sh")).replace("\\\n", " ")
    return [line.partition(" #")[0].strip() for line in text.splitlines() if line.strip()]


def _vidseg_commands(page: str) -> list[list[str]]:
    """What is given to `vidseg`, also through a container's image, each once, with a rendered street for a camera."""
    found: list[list[str]] = []
    for line in _lines(page):
        words = shlex.split(re.sub(r"/dev/video[0-9]+|csi://[0-9]+", "scene://street?frames=5", line))
        images = [index for index, word in enumerate(words) if word.startswith("vidseg:")]
        if words[0] == "vidseg":
            found.append(words)
        elif words[:2] == ["docker", "run"]:
            found.append(["vidseg", *(words[images[-1] + 1 :] or ["doctor"])])
    return [command for index, command in enumerate(found) if command not in found[:index]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("board")
    reader_material.write(path, SIZE_WH)
    return path


@pytest.mark.parametrize("page", [JETSON, DOCKER], ids=["jetson", "docker"])
def test_every_vidseg_command_works_in_the_order_given_or_says_that_there_is_no_gpu(folder: Path, page: str) -> None:
    if page is DOCKER:
        run(["vidseg", "export", "model.onnx", "--labels", "classes.txt", "--out", "model.vidseg"], folder)
    typed = _vidseg_commands(page)
    assert {command[1] for command in typed} >= {"doctor", "run"}
    for command in typed:
        done = run(command, folder)
        assert "Traceback" not in done.stderr, command
        needs_gpu = command[1] == "build"
        assert done.returncode == 0 or (needs_gpu and done.returncode in NO_GPU), (
            f"{command}\n{done.stdout}{done.stderr}"
        )
    assert list((folder / "masks").glob("*.png"))


@pytest.mark.parametrize("page", [JETSON, DOCKER], ids=["jetson", "docker"])
def test_every_block_is_a_script_that_a_shell_reads(page: str) -> None:
    for block in blocks(page, "sh"):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True, timeout=10)


def test_the_jetpacks_are_those_that_the_doctor_knows() -> None:
    rows = re.findall(r"^\| ([0-9.]+) \| ([0-9., ]+) \|", JETSON, flags=re.MULTILINE)
    assert {release: jetpack for jetpack, releases in rows for release in releases.split(", ")} == JETPACKS


def test_the_pages_say_what_was_not_tried() -> None:
    assert "**We had no Jetson.**" in JETSON
    assert "never\nbuilt**" in DOCKER


def test_every_link_leads_somewhere() -> None:
    for page in (JETSON, DOCKER):
        for target in re.findall(r"\]\((?!http)([^)#]+)", page):
            assert (ROOT / "docs" / target).exists(), target
