"""A tutorial that does not run teaches that the library does not work."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/tutorial.md").read_text(), flags=re.DOTALL)

EXPECTED = [
    r"\d+% road\n\(480, 640\)",
    r"street\S* 9 \d+ ms\nLedger",
    "20 pictures",
    r"\[0, 1, .*11\]",
    r"street\S* and street\S*seed=7",
    "go\n",
    "fastest",
]


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_each_piece_runs_by_itself(tmp_path: Path, number: int) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    done = subprocess.run(
        [sys.executable, "-c", SNIPPETS[number]], cwd=tmp_path, env=environment, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(EXPECTED[number], done.stdout), done.stdout


def test_no_piece_was_forgotten() -> None:
    assert len(SNIPPETS) == len(EXPECTED)
