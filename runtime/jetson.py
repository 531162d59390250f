"""What NVIDIA's Jetson boards say of themselves in files that anyone may read: no root, no commands.

Every reader takes the file system's root, and answers with nothing where a file is missing, cannot be read or makes no
sense: on other machines all of them do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")

JETPACKS = {
    "36.3.0": "6.0",
    "36.4.0": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "36.5.0": "6.2.2",
    "38.2.0": "7.0",
    "38.2.1": "7.0",
    "38.4.0": "7.1",
    "39.2.0": "7.2",
    "39.2.1": "7.2.1",
}
"""JetPack by the Jetson Linux (L4T) that it came with (NVIDIA's JetPack archive, and the releases' own files)."""

MAX_FILE_BYTES = 1 << 16
MAX_STATUS_BYTES = 1 << 26
"""dpkg's list of installed packages is some megabytes long."""


@dataclass(frozen=True, slots=True)
class GpuClock:
    """What the GPU's clock may be, in MHz: the governor moves it between the two as load demands."""

    min_mhz: float
    max_mhz: float

    @property
    def is_held(self) -> bool:
        """True after `jetson_clocks`: there is nothing to move between."""
        return self.min_mhz == self.max_mhz


@dataclass(frozen=True, slots=True)
class PowerMode:
    """A mode of `nvpmodel`: how much power the board may take, and so which clocks and cores there are.

    Attributes:
        number: what `nvpmodel -m` takes; a higher one is not a faster one.
        name: such as `MAXN` or `15W`.
    """

    number: int
    name: str


def l4t_release(root: Path = ROOT) -> str:
    """Version of Jetson Linux, such as `36.4.3`; "" elsewhere. In containers only the packages know it."""
    line = _text(root / "etc/nv_tegra_release")
    found = re.match(r"# R([0-9]{1,4}) \(release\), REVISION: ([0-9]{1,4}\.[0-9]{1,4})\b", line)
    if found:
        return f"{found[1]}.{found[2]}"
    found = re.match(r"[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}(?=-|$)", _installed(root, "nvidia-l4t-core"))
    return found[0] if found else ""


def jetpack_version(root: Path = ROOT) -> str:
    """Version of JetPack, such as `6.2`: of its package, else by Jetson Linux; "" where neither tells: no guesses."""
    found = re.match(r"[0-9]{1,3}(\.[0-9]{1,3}){1,2}(?=[+~-]|$)", _installed(root, "nvidia-jetpack"))
    return found[0] if found else JETPACKS.get(l4t_release(root), "")


def board_model(root: Path = ROOT) -> str:
    """Such as `NVIDIA Jetson Orin Nano Developer Kit`; "" on a machine that is no Jetson."""
    if "nvidia,tegra" not in _text(root / "proc/device-tree/compatible"):
        return ""
    return _printable(_text(root / "proc/device-tree/model")) or "an unknown Jetson"


def power_mode(root: Path = ROOT) -> str:
    """Name of the power mode, such as `MAXN`, else its number; "" elsewhere."""
    found = re.match(r"pmode:([0-9]{1,4})\b", _text(root / "var/lib/nvpmodel/status"))
    if not found:
        return ""
    names = {mode.number: mode.name for mode in power_modes(root)}
    return names.get(int(found[1]), str(int(found[1])))


def power_modes(root: Path = ROOT) -> list[PowerMode]:
    """The power modes that the board offers, in the order of its file."""
    lines = _text(root / "etc/nvpmodel.conf").splitlines()
    pattern = re.compile(r"\s*<\s*POWER_MODEL\s+ID=([0-9]{1,4})\s+NAME=([A-Za-z0-9_.+-]{1,64})\s*>")
    return [PowerMode(int(found[1]), found[2]) for found in map(pattern.match, lines) if found]


def gpu_clock(root: Path = ROOT) -> GpuClock | None:
    """Limits of the GPU's clock; None where devfreq has none. Of Thor's two nodes, the one that is not for video."""
    for folder in _glob(root / "sys/class/devfreq", "*gpu*"):
        limits = [_text(folder / name).strip() for name in ("min_freq", "max_freq")]
        if "nvd" not in folder.name and all(re.fullmatch(r"[0-9]{1,20}", limit) for limit in limits):
            return GpuClock(int(limits[0]) / 1e6, int(limits[1]) / 1e6)
    return None


def dla_cores(root: Path = ROOT) -> int:
    """How many deep learning accelerators the device tree has switched on. TensorRT may support fewer.

    A node without a `status` is on (Devicetree specification 0.4, section 2.3.4).
    """
    tree = root / "proc/device-tree"
    nodes = [node for depth in ("", "*/", "*/*/") for node in _glob(tree, f"{depth}nvdla*") if _text(node / "reg")]
    states = [_printable(_text(node / "status")) for node in nodes]
    return sum(state in {"", "ok", "okay"} for state in states)


def _installed(root: Path, package: str) -> str:
    """Version of an installed Debian package; "" where it is not installed."""
    status = _text(root / "var/lib/dpkg/status", MAX_STATUS_BYTES)
    found = re.search(rf"^Package: {re.escape(package)}\n((?:.+\n)*)", status, flags=re.MULTILINE)
    if not found or not re.search(r"^Status: \w+ ok installed$", found[1], flags=re.MULTILINE):
        return ""
    version = re.search(r"^Version: (\S{1,80})$", found[1], flags=re.MULTILINE)
    return version[1] if version else ""


def _text(path: Path, limit: int = MAX_FILE_BYTES) -> str:
    """The beginning of a regular file; "" where there is none that may be read."""
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            return file.read(limit).decode("utf-8", errors="replace")
    except OSError:
        return ""


def _printable(text: str) -> str:
    """A value of the device tree, which ends with a NUL, as one line of at most 100 letters."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:100]


def _glob(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []
