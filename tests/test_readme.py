"""Every command and snippet of the README, run as a reader would, in an empty folder."""

from __future__ import annotations

import http.client
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from time import monotonic

import pytest

from tests import reader_material
from tests.faults.servers import RtspServer, free_port, needs_rtsp_server
from tests.reader_material import blocks, commands, run
from tests.tiny_models import write_tiny_bundle

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder with what the README's reader brings: a model, class names, a clip, labelled images."""
    path = tmp_path_factory.mktemp("reader")
    reader_material.write(path)
    return path


def test_the_readme_starts_with_a_picture_and_the_two_commands() -> None:
    picture = re.search(r"!\[.*?\]\((.*?)\)", README)
    assert picture
    assert (ROOT / picture[1]).is_file()
    assert [command.split()[0] for command in commands(README)[:2]] == ["scripts/demo", "scripts/test"]
    assert README.index(picture[0]) < README.index("scripts/demo") < README.index("##")


def test_the_readme_says_what_the_demo_model_knows() -> None:
    assert "**only the rendered street**" in README


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.timeout(240)
def test_every_vidseg_command_works_in_the_order_given(folder: Path) -> None:
    typed = [command for command in commands(README) if command.startswith("vidseg") and "rtsp://" not in command]
    assert len(typed) >= 7
    for command in typed:
        done = run(shlex.split(command), folder)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    assert (folder / "out.mp4").stat().st_size > 1000
    assert len(list((folder / "masks").glob("*.png"))) == 30
    for snippet in blocks(README, "python"):
        done = run([sys.executable, "-c", snippet], folder)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 21


@needs_rtsp_server
def test_the_live_command_serves_a_page_records_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "model.vidseg", (64, 48))
    (command,) = [command for command in commands(README) if "rtsp://" in command and command.startswith("vidseg")]
    port = free_port()
    with RtspServer(credentials=("user", "password")) as server:
        typed = command.replace("camera/stream", server.place).replace(":8080", f":{port}").replace("=20", "=0.1")
        heed = ["env", "--default-signal=INT", f"PATH={Path(sys.executable).parent}:{os.environ['PATH']}"]
        with subprocess.Popen([*heed, *shlex.split(typed)], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
            try:
                _wait_for_results(port, process)
            finally:
                process.send_signal(signal.SIGINT)
                _, said = process.communicate(timeout=20)
    assert process.returncode == 130, said
    assert "password" not in said
    assert (tmp_path / "out.jsonl").read_text().count("\n") > 0
    assert list((tmp_path / "recordings").rglob("*.mp4"))


def _wait_for_results(port: int, process: subprocess.Popen[str]) -> None:
    """Until the page says that results come."""
    until = monotonic() + 40
    while monotonic() < until:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with suppress(OSError):  # it is not served yet
            connection.request("GET", "/health/ready")
            if connection.getresponse().status == 200:
                return
        connection.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
            break
    raise AssertionError("no results come")


@pytest.mark.timeout(500)
def test_the_demo_script_sets_itself_up_and_shows_masks(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "checkout"
    shutil.copytree(
        ROOT,
        copy,
        ignore=shutil.ignore_patterns(".git", ".venv*", ".*cache", "__pycache__", ".types", "build", "tests"),
    )
    environment = os.environ | {"VIDSEG_PYTHON": sys.executable, "PIP_NO_COMPILE": "1"}
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "VIDSEG_VENV"):
        environment.pop(name, None)
    done = subprocess.run(
        [copy / "scripts/demo", "--source", "scene://street?frames=20&pace=max"],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=230, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "There is no display here" in done.stderr
    assert (copy / ".venv/bin/vidseg").exists()
    assert (folder / "vidseg-001.mp4").stat().st_size > 1000
    refused = subprocess.run(
        [copy / ".venv/bin/vidseg", "export", "model.onnx", "--out", "x.vidseg"],
        cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert refused.returncode == 3
    assert 'Install them: pip install "vidseg[export]"' in refused.stderr
    for install in (command for command in commands(README) if "pip install" in command):
        subprocess.run(shlex.split(install), cwd=copy, env=environment, check=True, timeout=230)
    exported = subprocess.run(
        [copy / ".venv/bin/vidseg", "export", "model.onnx", "--labels", "classes.txt", "--out", "x.vidseg"],
        cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert exported.returncode == 0, exported.stderr
    assert (folder / "x.vidseg").exists()
