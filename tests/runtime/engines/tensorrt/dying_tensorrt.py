"""A TensorRT whose builds end as the environment says in `BUILD_ENDS`; everything before is as in `weak_tensorrt`."""

from __future__ import annotations

import enum
import os
import signal
import time
from typing import Any

from tests.runtime.engines.tensorrt import weak_tensorrt
from tests.runtime.engines.tensorrt.weak_tensorrt import (  # noqa: F401 - what the library has
    BuilderFlag,
    HardwareCompatibilityLevel,
    ILogger,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
    OnnxParser,
    ProfilingVerbosity,
    __version__,
)


class IProgressMonitor:
    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError


class ComputeCapability(enum.IntEnum):
    SM86 = 86
    SM87 = 87


class IBuilderConfig(weak_tensorrt.IBuilderConfig):
    progress_monitor: Any = None
    num_compute_capabilities = 0

    def set_compute_capability(self, _capability: int, _index: int) -> bool:
        return True


class Builder(weak_tensorrt.Builder):
    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def build_serialized_network(self, _network: Any, config: Any) -> bytes | None:
        config.progress_monitor.phase_start("Building engine", None, 2)
        config.progress_monitor.step_complete("Building engine", 0)
        ending = os.environ["BUILD_ENDS"]
        if ending == "MemoryError":
            raise MemoryError("std::bad_alloc")
        if ending == "exit":
            os.write(2, b"something that the library says\n")
            os._exit(3)
        if ending == "hang":
            while True:
                time.sleep(60)
        os.kill(os.getpid(), signal.Signals[ending])
        return None
