"""The folder for what can be found out again: choices of engines, plans."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from vidseg.runtime.errors import ConfigurationError


def user_cache_folder(environment: Mapping[str, str]) -> Path:
    """`$XDG_CACHE_HOME/vidseg`, else `~/.cache/vidseg` (XDG base directory specification 0.8). Not made here."""
    given = environment.get("XDG_CACHE_HOME", "")
    base = Path(given) if given.startswith("/") else Path(environment.get("HOME") or "/tmp") / ".cache"  # noqa: S108
    return base / "vidseg"


def plans_folder(environment: Mapping[str, str]) -> Path:
    """Where plans for the GPU are kept."""
    return user_cache_folder(environment) / "plans"


def private_folder(path: Path) -> Path:
    """Make a folder that nobody else can write to, or check that it is one.

    Raises:
        ConfigurationError: it is a link, somebody else's, open to others, or cannot be made: what lies in it might be
            forged.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.lstat()
    except OSError as error:
        raise ConfigurationError(f"{path}: the cache folder cannot be made", error.strerror or "") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise ConfigurationError(
            f"{path}: the cache folder is not safe",
            f"mode {stat.filemode(status.st_mode)} of user {status.st_uid}",
            f"Remove it, or: chmod 700 {path}",
        )
    return path
