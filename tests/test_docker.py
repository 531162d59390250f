"""The images cannot be built where the tests run, so what a build would stumble over is looked for."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "deploy/docker").glob("*.Dockerfile"))
PROJECT = (ROOT / "pyproject.toml").read_text()
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def _instructions(path: Path) -> list[tuple[str, str]]:
    """Keyword and the rest of each instruction, continued lines joined, without comments."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in joined]


def _of(path: Path, keyword: str) -> list[str]:
    return [rest for found, rest in _instructions(path) if found == keyword]


def _copied(path: Path) -> list[str]:
    return [source for rest in _of(path, "COPY") if "--from" not in rest for source in rest.split()[:-1]]


def test_there_is_one_for_each_kind_of_machine() -> None:
    assert [path.stem for path in FILES] == ["cpu", "desktop", "jetpack6", "jetpack7"]
    page = (ROOT / "docs/docker.md").read_text()
    assert set(re.findall(r"deploy/docker/[\w.]+", page)) == {path.relative_to(ROOT).as_posix() for path in FILES}


@each_file
def test_what_is_copied_is_there_and_all_that_is_needed(path: Path) -> None:
    copied = _copied(path)
    assert [source for source in copied if not (ROOT / source).exists()] == []
    assert set(copied) == {"src", "runtime", "export", "calibration", "pyproject.toml", "README.md", "LICENSE"}


@each_file
def test_the_base_is_one_release_and_its_python_is_supported(path: Path) -> None:
    for base in _of(path, "FROM"):
        (image,) = re.findall(r"NVIDIA's `(.*)`", path.read_text()) if base == "${BASE}" else [base]
        name, _, tag = image.partition(" ")[0].rpartition(":")
        assert name, image
        assert re.search(r"[0-9]+\.[0-9]+", tag), image
        if name == "python":
            python = tag.partition("-")[0]
            (supported,) = re.findall(r'^requires-python = "(.*)"$', PROJECT, flags=re.MULTILINE)
            assert SpecifierSet(supported).contains(f"{python}.0")


@each_file
def test_what_is_installed_is_offered_by_the_project(path: Path) -> None:
    (install,) = [command for command in _of(path, "RUN") if "pip install" in command]
    extras = set(re.findall(r"\w+", "".join(re.findall(r"\.\[([\w,]+)\]", install))))
    offered = PROJECT.split("[project.optional-dependencies]\n")[1].split("\n[")[0]
    assert extras <= set(re.findall(r"^(\w+) = \[", offered, flags=re.MULTILINE))
    assert "--no-cache-dir" in install
    is_jetson = path.stem.startswith("jetpack")
    assert ("--system-site-packages" in install) is is_jetson, "a Jetson's own TensorRT is the one that fits"
    assert not (is_jetson and "tensorrt" in extras)


@each_file
def test_the_user_is_not_root_and_owns_where_it_writes(path: Path) -> None:
    assert [keyword for keyword, _ in _instructions(path)][-4:] == ["USER", "WORKDIR", "ENTRYPOINT", "CMD"]
    assert _of(path, "USER") == ["vidseg"]
    (user,) = [command for command in _of(path, "RUN") if "useradd" in command]
    assert '--uid "$UID" --groups video vidseg' in user
    assert "--owner=vidseg --mode=700 /home/vidseg/.cache /home/vidseg/.cache/vidseg /work" in user
    assert _of(path, "WORKDIR")[-1] == "/work"


@each_file
def test_the_commands_are_read_by_a_shell_and_leave_no_package_lists(path: Path) -> None:
    for command in _of(path, "RUN"):
        subprocess.run(["bash", "-n"], input=command, text=True, check=True, timeout=10)
        if "apt-get install" in command:
            assert "apt-get update" in command
            assert "--no-install-recommends" in command
            assert command.endswith("rm -rf /var/lib/apt/lists/*")
    assert not {"ADD", "MAINTAINER"} & {keyword for keyword, _ in _instructions(path)}


def test_a_wheel_is_built_from_what_is_copied(tmp_path: Path) -> None:
    for source in _copied(FILES[0]):
        place = tmp_path / "source" / source
        place.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, place)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), "source"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"vidseg/cli.py", "vidseg/runtime/demo.vidseg", "vidseg/runtime/doctor.py"} <= names
