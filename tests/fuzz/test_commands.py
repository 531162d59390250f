"""The commands, given what nobody would give them: an exit code of ours, one line, no traceback, no password."""

from __future__ import annotations

import io
import os
import random
import resource
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import yaml

from tests.fuzz.addresses import LOCAL, PARTS, SINKS, damaged_address
from tests.fuzz.campaign import Campaign
from tests.fuzz.documents import hostile_yaml
from tests.fuzz.invariant import MAX_TEXT, OBEYED, check_hidden, limited
from tests.fuzz.mutation import damaged_bytes, damaged_text
from tests.fuzz.test_documents import SITES
from tests.tiny_models import write_tiny_bundle
from vidseg.cli import main

CODES = frozenset({0, 1, 2, 3, 4, 5, 6})
MAX_ADDRESS_SPACE = 16 << 30
PROCESS_S = 60


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_tiny_bundle(tmp_path / "tiny.vidseg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("GATE", "zebra7@quokka8/ocelot9")
    return tmp_path


def _arguments(rng: random.Random, folder: Path) -> list[str]:
    """Those of a command that ends before a source is opened: the bundle, or what it is given, is wrong."""
    kind = rng.randrange(6)
    if kind <= 2:
        (folder / "site.yaml").write_bytes(hostile_yaml(rng, yaml.safe_load(rng.choice(SITES)), PARTS))
        return ["run", "none.vidseg", "--config", "site.yaml"]
    if kind == 3:
        (folder / "bad.vidseg").write_bytes(damaged_bytes(rng, (folder / "tiny.vidseg").read_bytes()))
        return ["inspect", "bad.vidseg", *rng.choice(([], ["--json"]))]
    if kind == 4:
        address = damaged_address(rng).text
        sink = address if "://" in address else "ftp://x"
        return ["run", "tiny.vidseg", "--source", "scene://park", "--sink", sink.replace("web://", "ftp://")]
    options = [
        "--engine",
        "--variant",
        "--alpha",
        "--deadline",
        "--hide",
        "--threads",
        "--seconds",
        "--size",
        "--json",
        "-x",
    ]
    odd = ["inspect", "run", "bench", "none.vidseg", damaged_text(rng, rng.choice((*LOCAL, *SINKS[:7]))), *options]
    chosen = [rng.choice(("run", "inspect", "bench", "doctor", "rnu", "--help", "-x")), "none.vidseg"]
    return [text.replace("\x00", "") for text in (*chosen, *rng.sample(odd, rng.randint(1, 4)))]


def _check_output(text: str) -> None:
    check_hidden(text, PARTS)
    assert "Traceback" not in text, text[-2000:]
    for line in text.splitlines():
        assert not OBEYED.search(line), repr(line[:300])
        assert len(line) < MAX_TEXT, line[:300]


def _said_of(code: int, errors: str) -> None:
    assert code in CODES, code
    said = [line for line in errors.splitlines() if line.startswith("vidseg: ")]
    assert len(said) == 1 or code == 0, errors[:1000]


def test_in_this_process(campaign: Campaign, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for rng in campaign.cases("command", 25):
        monkeypatch.setattr(sys, "argv", ["vidseg", *_arguments(rng, folder)])
        out, errors = io.StringIO(), io.StringIO()
        with limited(), redirect_stdout(out), redirect_stderr(errors), pytest.raises(SystemExit) as ended:
            main()
        _check_output(out.getvalue() + errors.getvalue())
        _said_of(ended.value.code if isinstance(ended.value.code, int) else 1, errors.getvalue())


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_SPACE, MAX_ADDRESS_SPACE))


def test_in_a_process_of_its_own(campaign: Campaign, folder: Path) -> None:
    """As a person starts it, in a terminal of another character set now and then."""
    for rng in campaign.cases("process", 1):
        arguments = [text.encode("utf-8", "surrogatepass") for text in _arguments(rng, folder)]
        environment = os.environ | rng.choice(({}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}))
        done = subprocess.run(
            [sys.executable, "-m", "vidseg", *arguments], cwd=folder, env=environment, capture_output=True, check=False,
            timeout=PROCESS_S, stdin=subprocess.DEVNULL, preexec_fn=_limit_memory,
        )  # fmt: skip
        errors = done.stderr.decode(errors="replace")
        _check_output(done.stdout.decode(errors="replace") + errors)
        _said_of(done.returncode, errors)
