"""The builder's half of a weakly typed TensorRT, as 8.6 names it. The real one does nothing without a GPU.

A plan is JSON here: all that was set before it was built. What the real library refuses, this refuses too.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator
from typing import Any

import onnx

__version__ = "8.6.1"


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1

    def log(self, severity: Severity, message: str) -> None:
        raise NotImplementedError


class NetworkDefinitionCreationFlag(enum.IntEnum):
    EXPLICIT_BATCH = 0


class BuilderFlag(enum.IntEnum):
    FP16 = 0
    INT8 = 1
    GPU_FALLBACK = 3
    REFIT = 5
    PREFER_PRECISION_CONSTRAINTS = 11
    VERSION_COMPATIBLE = 15


class TacticSource(enum.IntEnum):
    CUBLAS = 0
    CUBLAS_LT = 1
    CUDNN = 2


class HardwareCompatibilityLevel(enum.IntEnum):
    NONE = 0
    AMPERE_PLUS = 1


class MemoryPoolType(enum.IntEnum):
    WORKSPACE = 0


class ProfilingVerbosity(enum.IntEnum):
    DETAILED = 2


class DeviceType(enum.IntEnum):
    GPU = 0
    DLA = 1


class DataType(enum.IntEnum):
    FLOAT = 0
    HALF = 1
    INT32 = 3
    UINT8 = 5


class LayerType(enum.IntEnum):
    CAST = 1
    CONSTANT = 2
    SHAPE = 3
    OTHER = 4


class ITensor:
    dynamic_range: tuple[float, float] | None = None

    def __init__(self, name: str, dtype: DataType, shape: tuple[int, ...] = ()) -> None:
        self.name = name
        self.dtype = dtype
        self.shape = shape

    def set_dynamic_range(self, low: float, high: float) -> bool:
        self.dynamic_range = (low, high)
        return low < high


class ILayer:
    precision: DataType | None = None

    def __init__(self, kind: LayerType, inputs: list[ITensor], outputs: list[ITensor]) -> None:
        self.type = kind
        self._inputs = inputs
        self._outputs = outputs
        self.num_inputs = len(inputs)
        self.num_outputs = len(outputs)

    def get_input(self, index: int) -> ITensor:
        return self._inputs[index]

    def get_output(self, index: int) -> ITensor:
        return self._outputs[index]


class INetworkDefinition:
    def __init__(self) -> None:
        self.tensors: dict[str, ITensor] = {}
        self.layers: list[ILayer] = []
        self.inputs: list[ITensor] = []
        self.outputs: list[ITensor] = []

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    @property
    def num_outputs(self) -> int:
        return len(self.outputs)

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    def get_input(self, index: int) -> ITensor:
        return self.inputs[index]

    def get_output(self, index: int) -> ITensor:
        return self.outputs[index]

    def get_layer(self, index: int) -> ILayer:
        return self.layers[index]


class ParserError:
    def __init__(self, node: int, desc: str) -> None:
        self._node = node
        self._desc = desc

    def node(self) -> int:
        return self._node

    def desc(self) -> str:
        return self._desc


class OnnxParser:
    num_errors = 0

    def __init__(self, network: INetworkDefinition, _logger: ILogger) -> None:
        self._network = network

    def get_error(self, index: int) -> ParserError:
        return ParserError(7 + index, "Assertion failed: an operator that it does not know")

    def parse(self, model: bytes) -> bool:
        graph = onnx.load_from_string(model).graph
        if any(len(node.output) > 1 for node in graph.node):
            self.num_errors = 2
            return False
        network = self._network
        for value in graph.input:
            shape = tuple(axis.dim_value or -1 for axis in value.type.tensor_type.shape.dim)
            network.inputs.append(ITensor(value.name, DataType.UINT8, shape))
        network.tensors = {tensor.name: tensor for tensor in network.inputs}
        for node in graph.node:
            output = ITensor(node.output[0], _OUTPUTS.get(node.output[0], DataType.FLOAT))
            inputs = [network.tensors[name] for name in node.input if name in network.tensors]  # else weights
            network.layers.append(
                ILayer(LayerType.__members__.get(node.op_type.upper(), LayerType.OTHER), inputs, [output])
            )
            network.tensors[output.name] = output
        network.outputs += [network.tensors[value.name] for value in graph.output]
        return True


_OUTPUTS = {"index": DataType.INT32, "class_map": DataType.UINT8, "confidence": DataType.UINT8}


class ITimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> memoryview:
        return memoryview(self.content or b"8.6.1: timed")


class IOptimizationProfile:
    def __init__(self) -> None:
        self.shapes: list[Any] = []

    def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        self.shapes += [name, *shapes]


class IBuilderConfig:
    builder_optimization_level = 3
    hardware_compatibility_level = HardwareCompatibilityLevel.NONE
    max_aux_streams = -1
    profiling_verbosity: ProfilingVerbosity | None = None
    default_device_type = DeviceType.GPU
    DLA_core = -1

    def __init__(self) -> None:
        self.flags: set[BuilderFlag] = set()
        self.profiles: list[IOptimizationProfile] = []
        self.sources = 7
        self.pools: dict[str, int] = {}
        self.cache: ITimingCache | None = None

    def set_flag(self, flag: BuilderFlag) -> None:
        self.flags.add(flag)

    def set_memory_pool_limit(self, pool: MemoryPoolType, size: int) -> None:
        self.pools[pool.name] = size

    def set_tactic_sources(self, mask: int) -> bool:
        self.sources = mask
        return True

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, content: bytes) -> ITimingCache:
        return ITimingCache(content)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if cache.content and not cache.content.startswith(b"8.6.1"):
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache:
        assert self.cache is not None
        return self.cache


class Builder:
    num_DLA_cores = 2  # noqa: N815 - the library's name

    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def create_network(self, flags: int) -> INetworkDefinition:
        assert flags == 1 << NetworkDefinitionCreationFlag.EXPLICIT_BATCH, "8.x parses explicit batches only"
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes | None:
        for reason in _obstacles(network, config):
            self._logger.log(ILogger.Severity.ERROR, reason)
        if list(_obstacles(network, config)):
            return None
        return json.dumps(
            {
                "flags": sorted(flag.name for flag in config.flags),
                "ranges": {name: tensor.dynamic_range for name, tensor in network.tensors.items()
                           if tensor.dynamic_range},
                "half": [layer.get_output(0).name for layer in network.layers if layer.precision == DataType.HALF],
                "outputs": [tensor.name for tensor in network.outputs],
                "profiles": [profile.shapes for profile in config.profiles],
                "sources": config.sources,
                "pools": config.pools,
                "level": config.builder_optimization_level,
                "compatible": config.hardware_compatibility_level.name,
                "device": config.default_device_type.name,
                "core": config.DLA_core,
                "aux_streams": config.max_aux_streams,
                "timing": config.cache.content.decode() if config.cache else None,
            }
        ).encode()  # fmt: skip


def _obstacles(network: INetworkDefinition, config: IBuilderConfig) -> Iterator[str]:
    if any(tensor.shape[0] == -1 for tensor in network.inputs) and not config.profiles:
        yield "Network has dynamic inputs, but no optimization profile has been defined."
    if DataType.HALF in {layer.precision for layer in network.layers} and BuilderFlag.FP16 not in config.flags:
        yield "FP16 precision has been set for a layer but FP16 is not configured in the builder"
    if "too_large" in network.tensors:
        yield "[virtualMemoryBuffer.cpp::resizePhysical::140] Error Code 2: OutOfMemory (Requested 9 GiB.)"
        yield "2: [builder.cpp::build::751] Error Code 2: Internal Error (Assertion engine != nullptr failed. )"
