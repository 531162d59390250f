"""A setting that makes no sense is told before a build of minutes begins."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vidseg.runtime.engines.tensorrt.settings import BuildSettings
from vidseg.runtime.errors import UsageError


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"precision": "fp8"}, "no such precision: got fp8"),
        ({"max_batch": 0}, "the batch is a number from 1 to 64: got 0"),
        ({"max_batch": 65}, "the batch"),
        ({"workspace_mib": 0}, "the workspace in MiB"),
        ({"optimization_level": 6}, "the optimization level is a number from 0 to 5"),
        ({"dla_core": -1}, "the DLA core"),
        ({"dla_core": 0, "precision": "fp32"}, "a DLA does not compute in fp32"),
        ({"dla_core": 0, "max_batch": 2}, "a DLA takes batches of one size only"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError, match=line):
        BuildSettings(**values)


def test_every_setting_is_in_the_document_so_that_none_is_missing_from_a_plans_name() -> None:
    plain = BuildSettings()
    changed: dict[str, Any] = {
        "precision": "int8", "max_batch": 4, "workspace_mib": 512, "tactic_sources": ("CUBLAS",),
        "optimization_level": 5, "dla_core": 0, "version_compatible": True, "hardware_compatible": True, "refit": True,
    }  # fmt: skip
    assert changed.keys() == plain.document().keys()
    for name, value in changed.items():
        assert json.dumps(BuildSettings(**{name: value}).document()) != json.dumps(plain.document())
