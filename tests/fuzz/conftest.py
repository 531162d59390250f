"""Rounds of cases, and the seed of one that failed."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

from tests.fuzz.campaign import Campaign, campaigns


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "campaign" in metafunc.fixturenames:
        rounds = campaigns(os.environ.get("FUZZ_SEED", ""), long=bool(metafunc.config.getoption("long")))
        metafunc.parametrize("campaign", list(rounds.values()), ids=list(rounds))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    campaign = getattr(item, "funcargs", {}).get("campaign")
    if report.failed and call.when == "call" and isinstance(campaign, Campaign):
        report.sections.append(("this case alone", f"FUZZ_SEED={campaign.current}"))
    return report
