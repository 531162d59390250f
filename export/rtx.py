"""Trying a graph on NVIDIA's own compiler, with no GPU: TensorRT-RTX parses ONNX and compiles it ahead of time.

The plans are measured and thrown away: a device makes its own. A graph that is compiled here is one that TensorRT's
parser takes, and the audit shows which of its convolutions run in INT8.
"""

from __future__ import annotations

import importlib.util
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from vidseg.export.graph import Graph
from vidseg.export.plan_audit import GraphNode, PlanAudit, audit_plan, shown_capability
from vidseg.export.rtx_build import COMPILER, MODEL, OUTCOME, Compilation, Outcome, Refusal
from vidseg.runtime.decoding import CLASS_MAP
from vidseg.runtime.errors import ConfigurationError, EngineError, ModelError, UsageError

COMPUTE_CAPABILITIES = (75, 80, 86, 89, 120, 121)
"""Of the GPUs that TensorRT-RTX 1.7 compiles for: Turing 7.5, Ampere 8.0 and 8.6, Ada 8.9, Blackwell 12.0 and 12.1.

On 7.5 the compiler turns INT8 back into float, and converts the weights anew for each frame: the audit shows it.
"""

_NODE = "vidseg_node_"
_FREE_MEMORY = "Free memory, or leave out the target `rtx`."
_ADVICE = {
    "MaxPool": "Its indices are not had there: upsample in another way than by unpooling",
    "DequantizeLinear": "Keep biases float, zero points 0 and scales above 0 in their own type (float16: 6e-8)",
    "QuantizeLinear": "Keep zero points 0 and scales above 0 in their own type (float16: 6e-8)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RtxOptions:
    """What is compiled.

    Attributes:
        name: of the model, for messages.
        compute_capabilities: of the GPUs to compile for, one plan each; 86 is 8.6.
        outputs: names of the outputs that are wanted; the rest of the graph is left out.
        max_batch: pictures that a plan takes at once, where the graph takes any number.
        timeout_s: for all plans together; the largest model tried took 3 s a plan.
    """

    name: str = "model"
    compute_capabilities: tuple[int, ...] = COMPUTE_CAPABILITIES
    outputs: tuple[str, ...] = (CLASS_MAP,)
    max_batch: int = 1
    timeout_s: float = 600.0

    def __post_init__(self) -> None:
        wrong = [number for number in self.compute_capabilities if number not in COMPUTE_CAPABILITIES]
        if wrong or not self.compute_capabilities:
            raise UsageError(
                "TensorRT-RTX does not compile for it",
                ", ".join(f"compute capability {shown_capability(number)}" for number in wrong) or "none",
                f"Choose of {', '.join(shown_capability(number) for number in COMPUTE_CAPABILITIES)}.",
            )


@dataclass(frozen=True, slots=True)
class RtxPlan:
    """A plan that was compiled, and thrown away.

    Attributes:
        compute_capability: 86 is 8.6.
        build_s: time the compiler took.
        plan_bytes: size of the plan.
        weights_bytes: of the weights in it; None where the compiler does not tell.
        activations_bytes: memory on the device beside them; None where the compiler does not tell.
        audit: what it consists of; None where the compiler does not tell.
    """

    compute_capability: int
    build_s: float
    plan_bytes: int
    weights_bytes: int | None
    activations_bytes: int | None
    audit: PlanAudit | None


@dataclass(frozen=True, slots=True)
class RtxBuild:
    """What the compiler made of a graph.

    Attributes:
        version: of the compiler.
        plans: one for each compute capability, in their order.
        peak_memory_bytes: of the compiler's process.
    """

    version: str
    plans: tuple[RtxPlan, ...]
    peak_memory_bytes: int

    def document(self) -> dict[str, Any]:
        """All of it as plain values for JSON."""
        return {
            "version": self.version,
            "peak_memory_bytes": self.peak_memory_bytes,
            "plans": [
                {
                    "compute_capability": plan.compute_capability,
                    "build_s": round(plan.build_s, 2),
                    "plan_bytes": plan.plan_bytes,
                    "weights_bytes": plan.weights_bytes,
                    "activations_bytes": plan.activations_bytes,
                    "audit": None if plan.audit is None else plan.audit.document(),
                    "summary": None if plan.audit is None else plan.audit.text().splitlines()[0],
                }
                for plan in self.plans
            ],
        }


def build_rtx(model: bytes, options: RtxOptions | None = None) -> RtxBuild:
    """Parse and compile a graph with TensorRT-RTX, strongly typed, in a process of its own.

    Args:
        model: a serialized ONNX graph; only its batch may be open. A float32 graph computes in float32 (TF32 where the
            GPU has it): for FP16 give one in float16.
        options: see `RtxOptions`.

    Raises:
        ConfigurationError: the compiler is not installed.
        ModelError: it refuses the graph; the message names the first node and the reason.
        EngineError: its process crashed, was killed, or took too long.
    """
    options = options or RtxOptions()
    check_compiler()
    content, nodes = _prepared(model, options)
    outcome = _compiled(content, options)
    if outcome.refusals:
        raise _refused(options.name, outcome.refusals, nodes)
    return RtxBuild(
        outcome.version,
        tuple(_plan(options.name, compilation, nodes) for compilation in outcome.compilations),
        outcome.peak_memory_bytes,
    )


def check_compiler() -> None:
    """Check that the compiler is installed.

    Raises:
        ConfigurationError: it is not.
    """
    if importlib.util.find_spec(COMPILER) is None:
        raise ConfigurationError(
            "the target `rtx` needs NVIDIA's compiler",
            f"no module `{COMPILER}`",
            'Install it: pip install "vidseg[rtx]", or leave out the target.',
        )


def _prepared(model: bytes, options: RtxOptions) -> tuple[bytes, dict[str, GraphNode]]:
    """The graph with the wanted outputs only, and its nodes by the names that they get: plain and unique ones."""
    graph = Graph(model)
    missing = [name for name in options.outputs if name not in graph.outputs]
    if missing:
        raise ModelError(f"{options.name}: no output `{missing[0]}`", ", ".join(graph.outputs), "Name one of these.")
    outputs = [value for value in graph.model.graph.output if value.name in options.outputs]
    del graph.model.graph.output[:]
    graph.model.graph.output.extend(outputs)
    nodes = {}
    for number, node in enumerate(graph.model.graph.node):
        node.name = f"{_NODE}{number}"
        nodes[node.name] = GraphNode(node.op_type, node.output[0], _weights_of(graph, node.input))
    content = graph.serialized()
    kept = {node.name for node in Graph(content).nodes}
    return content, {name: node for name, node in nodes.items() if name in kept}


def _weights_of(graph: Graph, inputs: list[str]) -> int:
    """Number of elements of a node's second input, looking through what dequantizes it; 0 where it is computed."""
    if len(inputs) < 2:
        return 0
    tensor = inputs[1]
    while (producer := graph.producer(tensor)) is not None:
        if producer.op_type not in {"Cast", "DequantizeLinear", "QuantizeLinear"}:
            return 0
        tensor = producer.input[0]
    return prod(graph.shape(tensor)) if graph.is_weight(tensor) else 0


def _compiled(content: bytes, options: RtxOptions) -> Outcome:
    numbers = [str(number) for number in (options.max_batch, *options.compute_capabilities)]
    with TemporaryDirectory(prefix="vidseg-rtx-") as folder:
        (Path(folder) / MODEL).write_bytes(content)
        try:
            done = subprocess.run(  # noqa: S603 - our own interpreter, module and numbers
                [sys.executable, "-m", "vidseg.export.rtx_build", folder, *numbers],
                cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                timeout=options.timeout_s, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise EngineError(
                f"{options.name}: NVIDIA's compiler was stopped",
                f"no plan after {options.timeout_s:g} s",
                "Give it more time, or leave out the target `rtx`.",
            ) from error
        if done.returncode != 0:
            got, do = _ending(done.returncode, done.stderr)
            raise EngineError(f"{options.name}: NVIDIA's compiler did not end well", got, do)
        return msgspec.json.decode((Path(folder) / OUTCOME).read_bytes(), type=Outcome)


def _ending(returncode: int, stderr: str) -> tuple[str, str]:
    """How a process ended, and what to do."""
    if returncode == -signal.SIGKILL:
        return "it was killed, as the system does when memory runs out", _FREE_MEMORY
    if returncode < 0:
        return f"it crashed with {signal.Signals(-returncode).name}", "Leave out the target `rtx`."
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    got = f"exit code {returncode}" + (f", {lines[-1][:200]}" if lines else "")
    return got, 'Install it again: pip install "vidseg[rtx]", or leave out the target `rtx`.'


def _refused(name: str, refusals: tuple[Refusal, ...], nodes: Mapping[str, GraphNode]) -> ModelError:
    first = refusals[0]
    node = nodes.get(first.node)
    more = f" and {len(refusals) - 1} more" if len(refusals) > 1 else ""
    shown = f"{node.operator} that makes `{node.output}`" if node else f"node `{first.node}`"
    advice = _ADVICE.get(node.operator if node else "", "Rewrite it with other operators")
    return ModelError(
        f"{name}: NVIDIA's parser refuses the {shown}{more}",
        _reason(first.reason, nodes),
        f"{advice}, or leave out the target `rtx`.",
    )


def _reason(text: str, nodes: Mapping[str, GraphNode]) -> str:
    """The one telling line of the library's own words, with our names of nodes, without its source files."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("Invalid Node")]
    line = re.sub(r" In \w+ at \S+:\d+\)?", "", lines[0] if lines else "no reason given")
    line = re.sub(r"^.*Error Code \d+: (API Usage Error \()?", "", line)
    named = re.sub(rf"{_NODE}\d+", lambda found: nodes[found[0]].output if found[0] in nodes else found[0], line)
    return named[:300].rstrip(".! ")


def _plan(name: str, compilation: Compilation, nodes: Mapping[str, GraphNode]) -> RtxPlan:
    log = "\n".join(compilation.log)
    number = compilation.compute_capability
    if not compilation.plan_bytes:
        if "bad_alloc" in log:
            raise EngineError(f"{name}: NVIDIA's compiler ran out of memory", _reason(log, nodes), _FREE_MEMORY)
        raise ModelError(
            f"{name}: NVIDIA's compiler makes no plan for compute capability {shown_capability(number)}",
            _reason(log, nodes),
            "Leave out the target `rtx`, or this compute capability.",
        )
    return RtxPlan(
        number,
        compilation.build_s,
        compilation.plan_bytes,
        _bytes(log, "Total Weights Memory"),
        _bytes(log, "Total Activation Memory"),
        audit_plan(log, nodes, number),
    )


def _bytes(log: str, label: str) -> int | None:
    found = re.search(rf"^{label}: (\d+) bytes$", log, re.MULTILINE)
    return int(found[1]) if found else None
