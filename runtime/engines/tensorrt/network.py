"""From a graph to a plan, by a loaded TensorRT. Runs in the process that `build_child` starts, and nowhere else.

Names of the library stand here as it has them; what only some releases have is asked for first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vidseg.runtime.engines.graph import INPUT
from vidseg.runtime.engines.tensorrt.builder_config import configure, name_target, use_timing_cache
from vidseg.runtime.engines.tensorrt.library import Library
from vidseg.runtime.engines.tensorrt.lowering import Ranges
from vidseg.runtime.engines.tensorrt.messages import readable, telling, tells_of_memory
from vidseg.runtime.engines.tensorrt.monitor import progress_monitor
from vidseg.runtime.engines.tensorrt.onnx_bytes import only_outputs, output_names
from vidseg.runtime.engines.tensorrt.request import LESS_MEMORY, BuildRequest, NetworkError

_AGAIN = "Export the bundle again."


@dataclass(frozen=True, slots=True, eq=False)
class BuiltNetwork:
    """What came of it.

    Attributes:
        plan: serialized.
        timing: what the library has timed, for the next build; b"" where it keeps nothing.
    """

    plan: bytes
    timing: bytes


def build_network(
    library: Library, model: bytes, request: BuildRequest, timing: bytes, progress: Callable[[float], None]
) -> BuiltNetwork:
    """Parse a graph and compile it.

    Args:
        library: TensorRT. Unless it builds ahead of time, the driver has to work.
        model: a serialized ONNX graph of a bundle.
        request: see there.
        timing: what an earlier build has kept, or b"".
        progress: called with the share that is done, 0..1, in the library's threads; must not raise.

    Raises:
        NetworkError: the library refuses the graph, a setting, or finds no plan.
    """
    module = library.module
    builder = module.Builder(library.logger)
    network = builder.create_network(_creation_flags(module, request.typing))
    parser = module.OnnxParser(network, library.logger)
    if not parser.parse(_with_outputs(model, request.outputs)):
        raise _refused([parser.get_error(index) for index in range(parser.num_errors)], library.last_error())
    if request.ranges is not None:
        set_ranges(module, network, request.ranges)
    config = builder.create_builder_config()
    configure(library, builder, config, request)
    if library.abilities.ahead_of_time:
        name_target(module, config, request.compute_capability)
    _add_profile(builder, network, config, request.settings.max_batch)
    if library.abilities.progress:
        config.progress_monitor = progress_monitor(module, progress)
    cache = None if library.abilities.ahead_of_time else use_timing_cache(config, timing)  # RTX keeps none
    library.take_errors()
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _no_plan(library.take_errors())
    return BuiltNetwork(bytes(plan), b"" if cache is None else bytes(config.get_timing_cache().serialize()))


def _creation_flags(module: Any, typing: str) -> int:
    kinds = module.NetworkDefinitionCreationFlag
    flags = 0
    if hasattr(kinds, "EXPLICIT_BATCH"):  # 8.x means something else without it; 11 has nothing else
        flags |= 1 << int(kinds.EXPLICIT_BATCH)
    if typing == "strong":
        flags |= 1 << int(kinds.STRONGLY_TYPED)
    return flags


def _refused(errors: list[Any], logged: str) -> NetworkError:
    if not errors:
        return NetworkError("TensorRT refuses the graph", logged or "no reason given")
    first = errors[0]
    has_names = hasattr(first, "node_name")  # 10 and later
    node = f"{first.node_operator()} `{first.node_name()}`" if has_names else f"node {first.node()}"
    more = f"; {len(errors) - 1} more" if len(errors) > 1 else ""
    return NetworkError(
        "TensorRT refuses the graph",
        f"{node}: {readable(first.desc())}{more}",
        "Export the bundle again, or take another engine.",
    )


def _no_plan(errors: list[str]) -> NetworkError:
    reason = telling(errors) or "no reason given"
    if "libnvinfer_lean" in reason:
        do = "Install TensorRT's lean runtime, or leave out --version-compatible."
        return NetworkError("a version-compatible plan has TensorRT's lean runtime inside", reason, do)
    no_memory = tells_of_memory(errors)
    no_kernel = "any implementation" in reason  # which TensorRT says where memory is short, too
    what = "TensorRT ran out of memory" if no_memory else "TensorRT finds no plan"
    return NetworkError(what, reason, LESS_MEMORY if no_memory or no_kernel else "Try `vidseg doctor`.")


def _with_outputs(model: bytes, wanted: tuple[str, ...]) -> bytes:
    try:
        given = output_names(model)
        missing = [name for name in wanted if name not in given]
        if not missing:
            return only_outputs(model, wanted)
    except ValueError as error:
        raise NetworkError("the graph is damaged", str(error), _AGAIN) from error
    raise NetworkError(f"the graph does not give `{missing[0]}`", ", ".join(given), _AGAIN)


def set_ranges(module: Any, network: Any, given: Ranges) -> None:
    """Give tensors their INT8 ranges, and keep layers in FP16 that lack one or are named.

    Args:
        module: TensorRT, of a release that has ranges.
        network: parsed, with the tensors' names of the graph.
        given: see there.
    """
    in_float = set(given.in_float)
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    constants = {layer.get_output(0).name for layer in layers if layer.type == module.LayerType.CONSTANT}
    for tensor in [network.get_input(index) for index in range(network.num_inputs)]:
        _set_range(tensor, given)
    for layer in layers:
        outputs = [layer.get_output(index) for index in range(layer.num_outputs)]
        inputs = [layer.get_input(index) for index in range(layer.num_inputs)]
        tensors = [tensor for tensor in (*inputs, *outputs) if tensor is not None and tensor.name not in constants]
        for tensor in outputs:
            _set_range(tensor, given)
        if layer.type in {module.LayerType.CONSTANT, module.LayerType.SHAPE}:
            continue
        if any(tensor.dtype != module.DataType.FLOAT for tensor in tensors):
            continue  # indices, or a conversion: its types are what it is for
        if any(tensor.name not in given.ranges for tensor in tensors) or in_float & {one.name for one in outputs}:
            layer.precision = module.DataType.HALF


def _set_range(tensor: Any, given: Ranges) -> None:
    magnitude = given.ranges.get(tensor.name)
    if magnitude is not None:
        tensor.set_dynamic_range(-magnitude, magnitude)


def _add_profile(builder: Any, network: Any, config: Any, max_batch: int) -> None:
    """Batches from 1 to the largest, tuned for the largest, where the graph's batch is free."""
    names = [network.get_input(index).name for index in range(network.num_inputs)]
    if names != [INPUT]:
        raise NetworkError(f"the graph does not take `{INPUT}` alone", ", ".join(names), _AGAIN)
    batch, *rest = tuple(network.get_input(0).shape)
    if batch != -1:
        if max_batch != batch:
            raise NetworkError(
                f"the graph takes no batch of {max_batch}", f"its batch is {batch}",
                "Export the bundle again, which frees it where the model allows, or leave out the batch.",
            )  # fmt: skip
        return
    profile = builder.create_optimization_profile()
    profile.set_shape(INPUT, (1, *rest), (max_batch, *rest), (max_batch, *rest))
    if config.add_optimization_profile(profile) < 0:
        raise NetworkError("TensorRT refuses the input's shape", f"{(max_batch, *rest)}", _AGAIN)
