"""How a plan is built: what a user may choose."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

from vidseg.runtime.errors import UsageError

Precision: TypeAlias = Literal["fp32", "fp16", "int8"]
MAX_BATCH = 64
MAX_OPTIMIZATION_LEVEL = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSettings:
    """All that a plan depends on beside the graph, the device and the library.

    Attributes:
        precision: what the network computes in; what is quantized in `int8` stands in the graph.
        max_batch: the largest batch that the plan takes; it is tuned for this one.
        workspace_mib: memory of the device that a kernel may ask for; None: all that is free.
        tactic_sources: names of the libraries of kernels to choose from, such as `CUBLAS`; None: TensorRT's own choice.
        optimization_level: 0..5: how long the builder looks for a faster plan; None: TensorRT's own, 3.
        dla_core: which deep learning accelerator computes what it can, and the GPU the rest; None: the GPU all.
        version_compatible: later releases of the same major version take the plan too. Costs some speed.
        hardware_compatible: other GPUs, Ampere and later, take the plan too. Costs some speed.
        refit: weights can be replaced later.

    Raises:
        UsageError: a value makes no sense.
    """

    precision: Precision = "fp16"
    max_batch: int = 1
    workspace_mib: int | None = None
    tactic_sources: tuple[str, ...] | None = None
    optimization_level: int | None = None
    dla_core: int | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False
    refit: bool = False

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise UsageError("no such precision", str(self.precision), f"Take {', '.join(get_args(Precision))}.")
        _check_range("the batch", self.max_batch, 1, MAX_BATCH)
        _check_range("the workspace in MiB", self.workspace_mib, 1, 1 << 20)
        _check_range("the optimization level", self.optimization_level, 0, MAX_OPTIMIZATION_LEVEL)
        _check_range("the DLA core", self.dla_core, 0, 15)
        if self.dla_core is not None and self.precision == "fp32":
            raise UsageError("a DLA does not compute in fp32", "", "Take fp16 or int8.")
        if self.dla_core is not None and self.max_batch > 1:
            raise UsageError("a DLA takes batches of one size only", f"up to {self.max_batch}", "Take a batch of 1.")

    def document(self) -> dict[str, Any]:
        """The attributes as plain values: for JSON, and for hashing."""
        return asdict(self)


def _check_range(what: str, value: int | None, low: int, high: int) -> None:
    if value is not None and not low <= value <= high:
        raise UsageError(f"{what} is a number from {low} to {high}", str(value))
