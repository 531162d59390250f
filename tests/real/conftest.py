"""The real models, clips and labelled frames that stand beside the checkout, where they do."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.zoo import DATA


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real test material."""
    if not (DATA / "models").is_dir():
        pytest.skip("the real models are not here (../shared/data)")
    return DATA


@pytest.fixture(scope="session")
def few_frames(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four frames of a real drive, far apart."""
    folder = tmp_path_factory.mktemp("frames")
    for path in sorted((data / "camvid/val").iterdir())[::26]:
        (folder / path.name).symlink_to(path)
    return folder
