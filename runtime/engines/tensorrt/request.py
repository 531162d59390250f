"""What is asked of the process that builds a plan."""

from __future__ import annotations

from typing import Literal

import msgspec

from vidseg.runtime.engines.tensorrt.lowering import Ranges
from vidseg.runtime.engines.tensorrt.settings import BuildSettings

LESS_MEMORY = "End other programs or add swap; or build with a smaller batch, or with less --workspace."
"""What to do where a build does not find the memory that it needs."""


class BuildRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is to be built.

    Attributes:
        module: TensorRT's.
        settings: as the user has them.
        typing, flags, ranges: see `Lowering`.
        outputs: names of those that the plan gives; what only others need is not computed.
        compute_capability: of the GPU, for a library that builds ahead of time.
    """

    module: str
    settings: BuildSettings
    typing: Literal["weak", "strong"]
    flags: tuple[str, ...]
    ranges: Ranges | None
    outputs: tuple[str, ...]
    compute_capability: tuple[int, int]


class NetworkError(Exception):
    """TensorRT does not build what was asked for: what, got and do of an `EngineError`."""

    def __init__(self, what: str, got: str = "", do: str = "") -> None:
        super().__init__(what, got, do)
