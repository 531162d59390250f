"""A doctor who misreads the board gives the wrong advice; one who stumbles over a file gives none at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidseg.runtime.jetson import (
    GpuClock,
    PowerMode,
    board_model,
    dla_cores,
    gpu_clock,
    jetpack_version,
    l4t_release,
    power_mode,
    power_modes,
)

pytestmark = pytest.mark.timeout(30)

READERS: list[Callable[[Path], Any]] = [
    l4t_release, jetpack_version, board_model, power_mode, power_modes, gpu_clock, dla_cores,
]  # fmt: skip

RELEASE = (
    "# R36 (release), REVISION: {}, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025\n"
    "# KERNEL_VARIANT: oot\nTARGET_USERSPACE_LIB_DIR=nvidia\n"
)
PACKAGES = """Package: nvidia-l4t-cores
Status: install ok installed
Version: 1.0.0-1

Package: nvidia-l4t-core
Status: install ok installed
Architecture: arm64
Version: 36.4.4-20250616085344
Description: NVIDIA core
 some more: Version: 9.9.9

Package: nvidia-jetpack
Status: {}
Version: 6.2.1+b38
"""
ORIN_NANO = {
    "etc/nv_tegra_release": RELEASE.format("4.3"),
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0",
    "proc/device-tree/bus@0/host1x@13e00000/nvdla0@15880000/reg": "\0\0\x15\x88",
    "proc/device-tree/bus@0/host1x@13e00000/nvdla0@15880000/status": "disabled\0",
    "var/lib/nvpmodel/status": "pmode:0001",
    "etc/nvpmodel.conf": (
        "< PARAM TYPE=FILE NAME=CPU_ONLINE >\n# comment: < POWER_MODEL ID=9 NAME=NONE >\n"
        "< POWER_MODEL ID=0 NAME=15W >\nGPU MAX_FREQ 612000000\n< POWER_MODEL ID=1 NAME=25W >\n"
        "< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n< PM_CONFIG DEFAULT=1 >\n"
    ),
    "sys/class/devfreq/17000000.gpu/min_freq": "306000000\n",
    "sys/class/devfreq/17000000.gpu/max_freq": "918000000\n",
}
AGX_THOR = {
    "etc/nv_tegra_release": RELEASE.format("2.2").replace("R36", "R38"),
    "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
    "proc/device-tree/compatible": "nvidia,p4071-0000+p3834-0008\0nvidia,p3834-0008\0nvidia,tegra264\0",
    "sys/class/devfreq/gpu-gpc-0/min_freq": "1575000000\n",
    "sys/class/devfreq/gpu-gpc-0/max_freq": "1575000000\n",
    "sys/class/devfreq/gpu-nvd-0/min_freq": "315000000\n",
    "sys/class/devfreq/gpu-nvd-0/max_freq": "1692000000\n",
}


def recorded(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_an_orin_nano_is_read(tmp_path: Path) -> None:
    root = recorded(tmp_path, ORIN_NANO)
    assert l4t_release(root) == "36.4.3"
    assert jetpack_version(root) == "6.2"
    assert board_model(root) == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
    assert power_mode(root) == "25W"
    assert power_modes(root) == [PowerMode(0, "15W"), PowerMode(1, "25W"), PowerMode(2, "MAXN_SUPER")]
    assert gpu_clock(root) == GpuClock(306, 918)
    assert not GpuClock(306, 918).is_held
    assert dla_cores(root) == 0


def test_a_thor_is_read_and_its_jetpack_is_not_guessed(tmp_path: Path) -> None:
    root = recorded(tmp_path, AGX_THOR)
    assert (l4t_release(root), jetpack_version(root)) == ("38.2.2", "")
    assert board_model(root) == "NVIDIA Jetson AGX Thor Developer Kit"
    clock = gpu_clock(root)
    assert clock is not None
    assert clock.is_held
    assert (power_mode(root), power_modes(root), dla_cores(root)) == ("", [], 0)


def test_two_accelerators_are_counted_wherever_the_tree_has_them(tmp_path: Path) -> None:
    tree = "proc/device-tree/bus@0/host1x@13e00000"
    nodes = {f"{tree}/nvdla0@15880000/reg": "x", f"{tree}/nvdla0@15880000/status": "okay\0", f"{tree}/nvdla0": "alias"}
    assert dla_cores(recorded(tmp_path, nodes | {"proc/device-tree/nvdla1@158c0000/reg": "x"})) == 2


def test_packages_tell_the_version_where_the_file_is_missing(tmp_path: Path) -> None:
    """In a container that has them, and on a board whose JetPack was updated by apt."""
    root = recorded(tmp_path, {"var/lib/dpkg/status": PACKAGES.format("install ok installed")})
    assert (l4t_release(root), jetpack_version(root)) == ("36.4.4", "6.2.1")
    recorded(tmp_path, {"etc/nv_tegra_release": RELEASE.format("4.3")})
    assert (l4t_release(root), jetpack_version(root)) == ("36.4.3", "6.2.1")
    recorded(tmp_path, {"var/lib/dpkg/status": PACKAGES.format("deinstall ok config-files")})
    assert jetpack_version(root) == "6.2"


def test_a_mode_without_a_name_is_its_number(tmp_path: Path) -> None:
    assert power_mode(recorded(tmp_path, {"var/lib/nvpmodel/status": "pmode:0012\n"})) == "12"


def test_another_machine_has_none_of_it(tmp_path: Path) -> None:
    assert [reader(tmp_path) for reader in READERS] == ["", "", "", "", [], None, 0]
    raspberry = {"proc/device-tree/compatible": "raspberrypi,5-model-b\0brcm,bcm2712\0", "proc/device-tree/model": "Pi"}
    assert board_model(recorded(tmp_path, raspberry)) == ""


@given(contents=st.lists(st.binary(max_size=80), min_size=9, max_size=9))
def test_no_content_of_a_file_makes_a_reader_fail(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes]
) -> None:
    """Each file begins as it should, so that the noise gets far."""
    root = tmp_path_factory.mktemp("noise")
    for (name, text), noise in zip((ORIN_NANO | {"var/lib/dpkg/status": PACKAGES}).items(), contents, strict=False):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text[: len(text) * 2 // 3].encode() + noise)
    release, jetpack, model, mode, modes, _, cores = (reader(root) for reader in READERS)
    assert all(text.isprintable() and len(text) <= 100 for text in (release, jetpack, model, mode))
    assert all(each.name for each in modes)
    assert 0 <= cores <= 1


@pytest.mark.parametrize("kind", ["folder", "fifo", "loop", "huge"])
def test_no_kind_of_file_makes_a_reader_fail(tmp_path: Path, kind: str) -> None:
    for name in [*ORIN_NANO, "var/lib/dpkg/status"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "folder":
            path.mkdir()
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "loop":
            path.symlink_to(path)
        else:
            path.write_bytes(b"# R36 (release), REVISION: " * 10_000)
    assert [reader(tmp_path) for reader in READERS] == ["", "", "", "", [], None, 0]
