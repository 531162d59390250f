"""What lies in a folder that others can write to may be forged, and must not be used."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from vidseg.runtime.cache import private_folder, user_cache_folder
from vidseg.runtime.errors import ConfigurationError


def test_the_folder_is_where_the_desktop_says() -> None:
    assert user_cache_folder({"XDG_CACHE_HOME": "/a", "HOME": "/h"}) == Path("/a/vidseg")
    assert user_cache_folder({"XDG_CACHE_HOME": "relative", "HOME": "/h"}) == Path("/h/.cache/vidseg")
    assert user_cache_folder({"HOME": "/h"}) == Path("/h/.cache/vidseg")


def test_it_is_made_for_the_user_alone(tmp_path: Path) -> None:
    made = private_folder(tmp_path / "a/b")
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert private_folder(made) == made


def test_links_open_folders_and_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "file").write_text("x")
    for name in ("link", "open", "file"):
        with pytest.raises(ConfigurationError, match="cache folder"):
            private_folder(tmp_path / name)
