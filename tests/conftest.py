"""Around every test."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import settings


def pytest_addoption(parser: pytest.Parser) -> None:
    """`scripts/test --long`: as many random cases as the project's claims are made of."""
    parser.addoption("--long", action="store_true", help="random tests run all their cases, which takes minutes")


def pytest_configure(config: pytest.Config) -> None:
    """Property tests have the same cases in every run of the suite, and others in each long one."""
    settings.load_profile("others" if config.getoption("long") else "the same")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that may take long come first: at the end, no core waits for the last one of another."""
    items.sort(key=lambda item: -_most_s(item))


def _most_s(item: pytest.Item) -> float:
    """What a test's own time limit is, in seconds, where that is a long one."""
    mark = item.get_closest_marker("timeout")
    most_s = float(mark.args[0]) if mark else 0.0
    return most_s if most_s > LONG_S else 0.0


LONG_S = 100


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test, nor a command that it starts, reads or changes what the user's runs have remembered."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


Command: TypeAlias = Callable[..., tuple[object, str]]


@pytest.fixture
def in_process(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> Command:
    """Runs the command here, in the test's folder, for tests that are many: its exit code and what it says."""
    from vidseg.cli import main

    def run(*arguments: str) -> tuple[object, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["vidseg", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        logged = "".join(f"vidseg: {message}\n" for message in caplog.messages)
        return ended.value.code, capsys.readouterr().err + logged

    return run


# A loaded machine is slow, not wrong: pytest's own timeout ends what hangs.
settings.register_profile("the same", deadline=None, derandomize=True, max_examples=50)
settings.register_profile("others", deadline=None, max_examples=1000)
