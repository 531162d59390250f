"""Which cameras are there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

SYSFS = Path("/sys/class/video4linux")
BY_ID = Path("/dev/v4l/by-id")
DEV = Path("/dev")


@dataclass(frozen=True, slots=True)
class CameraInfo:
    """A camera as the system names it.

    Attributes:
        path: its device, such as `/dev/video0`; the number may be another one after a restart.
        name: what the driver calls it.
        stable_id: a link in `/dev/v4l/by-id` that leads to the same camera whatever its number is; None without one.
    """

    path: Path
    name: str
    stable_id: Path | None


def list_cameras(sysfs: Path = SYSFS, by_id: Path = BY_ID, dev: Path = DEV) -> list[CameraInfo]:
    """The cameras of this machine by number; what vanishes meanwhile is left out.

    A camera often has several nodes. The first one, of `index` 0, gives pictures; the others give metadata.

    Args:
        sysfs, by_id, dev: where the kernel and udev describe them.
    """
    stable_ids = _stable_ids(by_id)
    found = [_camera(node, dev / node.name, stable_ids) for node in sorted(_nodes(sysfs), key=_number)]
    return [camera for camera in found if camera is not None]


def _camera(node: Path, path: Path, stable_ids: dict[Path, Path]) -> CameraInfo | None:
    try:
        if int((node / "index").read_text()) != 0 or not path.exists():
            return None
        name = (node / "name").read_text(errors="replace").strip()
    except (OSError, ValueError):
        return None
    return CameraInfo(path, name, stable_ids.get(path.resolve()))


def _nodes(sysfs: Path) -> list[Path]:
    try:
        return [node for node in sysfs.iterdir() if re.fullmatch(r"video[0-9]+", node.name)]
    except OSError:  # a machine without cameras has no such folder
        return []


def _number(node: Path) -> int:
    return int(node.name.removeprefix("video"))


def _stable_ids(by_id: Path) -> dict[Path, Path]:
    try:
        return {link.resolve(): link for link in sorted(by_id.iterdir(), reverse=True)}
    except OSError:
        return {}
