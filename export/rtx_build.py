"""NVIDIA's compiler, in a process of its own: `python -m vidseg.export.rtx_build FOLDER MAX_BATCH COMPUTE_CAPABILITY..`

It is a large binary library that can end its process in ways that no `except` sees, so it never runs in ours. Reads
`model.onnx` of the folder and writes `outcome.json` there. It parses and compiles on the CPU; a GPU is not needed, and
not used where there is one.
"""

from __future__ import annotations

import importlib
import os
import resource
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec

COMPILER = "tensorrt_rtx_bindings"
MODEL, OUTCOME = "model.onnx", "outcome.json"


class Refusal(msgspec.Struct, frozen=True):
    """A node that the parser does not take, by its name, and the parser's reason."""

    node: str
    reason: str


class Compilation(msgspec.Struct, frozen=True, kw_only=True):
    """One plan.

    Attributes:
        compute_capability: what it is for; 86 is 8.6.
        build_s: how long it took.
        plan_bytes: its size; 0 where the compiler failed.
        log: what it logged at detailed verbosity: memory and the list of layers, or its errors where it failed.
    """

    compute_capability: int
    build_s: float
    plan_bytes: int
    log: tuple[str, ...]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it: nodes that were refused, or a plan for each compute capability.

    Attributes:
        version: of the compiler.
        peak_memory_bytes: of the process.
    """

    version: str
    refusals: tuple[Refusal, ...]
    compilations: tuple[Compilation, ...]
    peak_memory_bytes: int


def compile_model(model: bytes, max_batch: int, compute_capabilities: list[int]) -> Outcome:
    """Parse a serialized ONNX model as a strongly typed network, and compile it for each compute capability.

    Where its first axis is open, a plan takes 1 to `max_batch` pictures, and is best for one.
    """
    compiler: Any = importlib.import_module(COMPILER)
    messages: list[tuple[str, str]] = []

    class Log(compiler.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            compiler.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            messages.append((severity.name, message))

    log = Log()
    builder = compiler.Builder(log)
    network = builder.create_network(1 << int(compiler.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = compiler.OnnxParser(network, log)
    refusals, compilations = [], []
    if parser.parse(model):
        for number in compute_capabilities:
            messages.clear()
            compilations.append(_compile(compiler, builder, network, (number, max_batch), messages))
    else:
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        refusals = [Refusal(error.node_name(), error.desc()) for error in errors]
    return Outcome(
        version=compiler.__version__,
        refusals=tuple(refusals),
        compilations=tuple(compilations),
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def _compile(
    compiler: Any, builder: Any, network: Any, target: tuple[int, int], messages: list[tuple[str, str]]
) -> Compilation:
    compute_capability, max_batch = target
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(compiler.ComputeCapability, f"SM{compute_capability}"), 0)
    config.profiling_verbosity = compiler.ProfilingVerbosity.DETAILED
    image = network.get_input(0)
    if image.shape[0] == -1:
        profile = builder.create_optimization_profile()
        profile.set_shape(image.name, *((pictures, *image.shape[1:]) for pictures in (1, 1, max_batch)))
        config.add_optimization_profile(profile)
    started = perf_counter()
    plan = builder.build_serialized_network(network, config)
    build_s = perf_counter() - started
    if plan is None:
        kept = [text for severity, text in messages if severity in {"ERROR", "INTERNAL_ERROR"}]
    else:
        kept = [text for _, text in messages if text.startswith(("Layers:", "Total ", "Max Scratch"))]
    return Compilation(
        compute_capability=compute_capability,
        build_s=build_s,
        plan_bytes=0 if plan is None else plan.nbytes,
        log=tuple(kept),
    )


def main() -> None:
    """Do what the command line says, then leave without running the library's destructors, which have crashed."""
    folder, *numbers = sys.argv[1:]
    max_batch, *compute_capabilities = map(int, numbers)
    outcome = compile_model((Path(folder) / MODEL).read_bytes(), max_batch, compute_capabilities)
    (Path(folder) / OUTCOME).write_bytes(msgspec.json.encode(outcome))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
