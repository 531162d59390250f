"""The calibration table: the largest magnitude of each activation, by method, and which method was taken.

JSON, and TensorRT's calibration cache: a line of text with its version, then one line `NAME: HEX` for each tensor, the
scale as a big-endian float32 in hexadecimal.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Annotated

import msgspec

from vidseg.calibration.ranges import QMAX
from vidseg.runtime.errors import ConfigurationError

FORMAT = 1
Amax = Annotated[float, msgspec.Meta(ge=0, le=3.4e38)]  # fits a float32
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class TensorRange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was seen of one activation.

    Attributes:
        amax: the largest magnitude to keep, by method; see `vidseg.calibration.ranges.METHODS`.
        method: the one that gave the least error behind it.
        signed: True where values below zero were seen.
    """

    amax: dict[str, Amax]
    method: str
    signed: bool

    @property
    def chosen(self) -> float:
        """The magnitude that the chosen method gives."""
        return self.amax[self.method]


class CalibrationTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Ranges of all watched activations of a graph.

    Attributes:
        format: of this file.
        model_sha256: of the float graph that was watched.
        frames_sha256: of all pixels that it saw, in order.
        frames: how many.
        equalization: what each channel of an activation was divided by before it was watched, by its name; see
            `vidseg.export.equalize`.
        tensors: by the activation's name.
    """

    format: int
    model_sha256: Sha256
    frames_sha256: Sha256
    frames: Annotated[int, msgspec.Meta(ge=1)]
    equalization: dict[str, tuple[float, ...]] = {}
    tensors: dict[str, TensorRange]

    def amax(self) -> dict[str, float]:
        """The chosen range of each activation."""
        return {name: tensor.chosen for name, tensor in self.tensors.items()}


def table_json(table: CalibrationTable) -> bytes:
    """The table as JSON, names sorted: the same table gives the same bytes."""
    return msgspec.json.format(_ENCODER.encode(table), indent=1) + b"\n"


_ENCODER = msgspec.json.Encoder(order="deterministic")


def parse_table(content: bytes, origin: str) -> CalibrationTable:
    """Read a table.

    Raises:
        ConfigurationError: it is no JSON, not of this schema, or names a method that it has no value of.
    """
    try:
        table = msgspec.json.decode(content, type=CalibrationTable)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{origin}: not a calibration table", f"{error!s:.300}", "Calibrate again.") from error
    if table.format != FORMAT:
        raise ConfigurationError(f"{origin}: not a calibration table of format {FORMAT}", f"format {table.format}")
    missing = [name for name, tensor in table.tensors.items() if tensor.method not in tensor.amax]
    if missing:
        raise ConfigurationError(
            f"{origin}: {missing[0]!r:.200} has no range by its method", table.tensors[missing[0]].method[:40]
        )
    return table


_CACHE_ALGORITHM = "EntropyCalibration2"
_SMALLEST = 2.0**-126  # of the normal float32 numbers


def tensorrt_cache(amax: Mapping[str, float], version: str = "8600") -> str:
    """TensorRT's calibration cache, as `IInt8EntropyCalibrator2.read_calibration_cache` takes it.

    Args:
        amax: largest magnitude by tensor.
        version: of TensorRT, as 8600 for 8.6.0; it reads caches of its own version only.
    """
    lines = [f"TRT-{version}-{_CACHE_ALGORITHM}"]
    scales = {name: max(value / QMAX, _SMALLEST) for name, value in amax.items()}  # of 0 there is no inverse
    lines += [f"{name}: {struct.pack('>f', scale).hex()}" for name, scale in sorted(scales.items())]
    return "\n".join(lines) + "\n"


def parse_tensorrt_cache(text: str, origin: str) -> dict[str, float]:
    """The largest magnitude by tensor from TensorRT's calibration cache; the inverse of `tensorrt_cache`.

    Raises:
        ConfigurationError: it is none.
    """
    lines = text.removesuffix("\n").split("\n")  # splitlines() would break names
    if not lines[0].startswith("TRT-"):
        raise ConfigurationError(f"{origin}: not a calibration cache of TensorRT", f"{text[:20]!r}")
    amax: dict[str, float] = {}
    for number, line in enumerate(lines[1:], start=2):
        name, separator, digits = line.rpartition(": ")
        try:
            (scale,) = struct.unpack(">f", bytes.fromhex(digits))
        except (ValueError, struct.error) as error:
            raise ConfigurationError(f"{origin}: line {number} is no scale", f"{line[:60]!r}") from error
        if not separator or not scale > 0 or scale == float("inf"):
            raise ConfigurationError(f"{origin}: line {number} is no scale", f"{line[:60]!r}")
        amax[name] = scale * QMAX
    return amax
