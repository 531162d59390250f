"""Around every test."""

from __future__ import annotations

import pytest
from hypothesis import settings


def pytest_addoption(parser: pytest.Parser) -> None:
    """`scripts/test --long`: as many random cases as the project's claims are made of."""
    parser.addoption("--long", action="store_true", help="random tests run all their cases, which takes minutes")


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test, nor a command that it starts, reads or changes what the user's runs have remembered."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


# A loaded machine is slow, not wrong: pytest's own timeout ends what hangs.
settings.register_profile("vidseg", deadline=None)
settings.load_profile("vidseg")
