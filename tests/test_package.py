"""What a person installs has to be all of it: a folder missing in pyproject.toml only shows on their machine."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"src/vidseg": "vidseg", "runtime": "vidseg/runtime", "export": "vidseg/export"}
FOLDERS["calibration"] = "vidseg/calibration"
SHIPPED = ("*.py", "py.typed", "*.vidseg", "*.html", "*.css", "*.js", "*.svg")


def _files() -> dict[str, str]:
    """Path in the installed package by path in the repository, of all that has to be shipped."""
    return {
        path.relative_to(ROOT).as_posix(): f"{target}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, target in FOLDERS.items()
        for pattern in SHIPPED
        for path in (ROOT / folder).rglob(pattern)
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist, and the wheel that was built from it."""
    place = tmp_path_factory.mktemp("build")
    copy = place / "copy"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(place / "dist"), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return place / "dist"


def test_the_wheel_has_every_file_and_the_licence(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert set(_files().values()) - names == set(), "is the folder listed under [tool.setuptools] packages?"
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"vidseg"}


def test_the_sdist_has_every_file_and_the_licence(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {*_files(), "LICENSE", "pyproject.toml", "README.md"} - names == set()


def test_the_installed_wheel_imports_from_its_own_place(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(tmp_path),
        str(wheel),
    ]
    subprocess.run(pip, check=True, timeout=60)
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import vidseg.runtime.frame, vidseg.export, vidseg.calibration.metrics, vidseg.cli\n"
        "print(*(module.__file__ for name, module in sys.modules.items() if name.startswith('vidseg')), sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert all(Path(line).is_relative_to(tmp_path) for line in done.stdout.splitlines())


def test_every_dependency_is_explained() -> None:
    text = (ROOT / "docs/dependencies.md").read_text()
    for requirement in importlib.metadata.requires("vidseg") or []:
        (name,) = re.findall(r"^[\w-]+", requirement)
        assert name == "vidseg" or f"`{name}`" in text, name
