"""NVIDIA's compiler has the last word on a graph: what it refuses, or turns back into float, must show before a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, version_converter

from vidseg.export import rtx
from vidseg.export.plan_audit import PlanAudit, audit_plan
from vidseg.export.rtx import COMPUTE_CAPABILITIES, RtxBuild, RtxOptions, build_rtx
from vidseg.export.rtx_build import COMPILER, Compilation
from vidseg.runtime.bundle import open_bundle
from vidseg.runtime.errors import ConfigurationError, EngineError, ModelError, UsageError

DEMO = Path(__file__).parents[2] / "runtime/demo.vidseg"


@pytest.fixture(scope="module")
def compiler() -> None:
    """Skips where NVIDIA's compiler is not installed."""
    pytest.importorskip(COMPILER, reason='NVIDIA\'s compiler is not installed: pip install "vidseg[rtx]"')


needs_compiler = pytest.mark.usefixtures("compiler")


def _demo() -> Any:
    bundle = open_bundle(DEMO)
    return onnx.load_from_string(bundle.members[bundle.manifest.variants[0].file])


def _quantized(model: Any, rank: int = 0, bias: bool = False) -> Any:
    """Q/DQ by hand before each convolution of 16 channels and more, weights per channel; scales of activations made up.

    `rank` 1 writes the scales of activations as vectors of one number; `bias` quantizes biases too, to int32.
    """
    graph = model.graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes: list[Any] = []

    def dequantized(name: str, value: Any, scale: Any, **attributes: Any) -> str:
        names = [f"{name}/{part}" for part in ("value", "scale", "zero")]
        for part, array in zip(names, (value, np.float32(scale), np.zeros_like(scale, value.dtype)), strict=True):
            graph.initializer.append(numpy_helper.from_array(np.asarray(array), part))
        nodes.append(helper.make_node("DequantizeLinear", names, [f"{name}/dq"], name=f"{name}/dq", **attributes))
        return f"{name}/dq"

    for node in list(graph.node):
        kernel = weights.get(node.input[1]) if node.op_type == "Conv" else None
        if kernel is not None and kernel.shape[0] >= 16 and kernel.shape[1] in {1, 16, 32, 64}:  # 1: depthwise
            source = node.input[0]
            pair = [f"{node.output[0]}/in/{part}" for part in ("scale", "zero")]
            for part, zero in zip(pair, (np.float32(0.05), np.int8(0)), strict=True):
                graph.initializer.append(numpy_helper.from_array(np.full((1,) * rank, zero), part))
            middle, output = f"{node.output[0]}/in/q", f"{node.output[0]}/in/dq"
            nodes.append(helper.make_node("QuantizeLinear", [source, *pair], [middle], name=middle))
            nodes.append(helper.make_node("DequantizeLinear", [middle, *pair], [output], name=output))
            scale = np.abs(kernel).max(axis=(1, 2, 3)) / 127
            rounded = np.rint(kernel / scale[:, None, None, None]).astype(np.int8)
            node.input[0] = output
            node.input[1] = dequantized(node.input[1], rounded, scale, axis=0)
            if bias:
                whole = np.rint(weights[node.input[2]] / (0.05 * scale)).astype(np.int32)
                node.input[2] = dequantized(node.input[2], whole, 0.05 * scale, axis=0)
        nodes.append(node)
    return _with_nodes(model, nodes)


def _in_float16(model: Any) -> Any:
    """Weights, scales and casts in float16, at an opset where DequantizeLinear gives float16."""
    model = version_converter.convert_version(model, 19)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
    del model.graph.value_info[:]
    return model


def _with_nodes(model: Any, nodes: list[Any]) -> Any:
    copies = []
    for node in nodes:
        copies.append(onnx.NodeProto())
        copies[-1].CopyFrom(node)
    del model.graph.node[:]
    model.graph.node.extend(copies)
    return model


FORMS: dict[str, Callable[[], Any]] = {
    "fp32": _demo,
    "fp16": lambda: _in_float16(_demo()),
    "int8": lambda: _quantized(_demo()),
    "int8 in fp16": lambda: _in_float16(_quantized(_demo())),
    "int8, scales of rank 1": lambda: _quantized(_demo(), rank=1),
}


@cache
def _built(form: str) -> RtxBuild:
    return build_rtx(FORMS[form]().SerializeToString(), RtxOptions(name=form, compute_capabilities=(75, 86)))


def _audit(build: RtxBuild, compute_capability: int = 86) -> PlanAudit:
    (audit,) = [plan.audit for plan in build.plans if plan.compute_capability == compute_capability]
    assert audit is not None
    return audit


def _types(audit: PlanAudit) -> list[str]:
    return [convolution.data_type for convolution in audit.convolutions.values()]


@needs_compiler
@pytest.mark.parametrize(
    ("form", "types"),
    [
        ("fp32", ["fp32"] * 10),
        ("fp16", ["fp16"] * 10),
        ("int8", ["fp32", *["int8"] * 8, "fp32"]),
        ("int8 in fp16", ["fp16", *["int8"] * 8, "fp16"]),
    ],
)
def test_the_audit_tells_which_convolutions_run_in_which_type(form: str, types: list[str]) -> None:
    """The stem reads 3 channels and the classifier gives 7: they stay float."""
    assert _types(_audit(_built(form))) == types


@needs_compiler
def test_the_audit_counts_what_quantization_costs() -> None:
    """INT8 that only adds kernels that convert would be sold as faster, and is slower."""
    plain, quantized = _audit(_built("fp16")), _audit(_built("int8 in fp16"))
    assert (plain.kernels, plain.conversions) == (14, 2)  # the image's type and layout, the class map's type
    assert quantized.kernels > plain.kernels
    assert quantized.conversions > plain.conversions
    assert "8 in int8" in quantized.text()
    assert json.loads(json.dumps(quantized.document()))["kernels"] == quantized.kernels


@needs_compiler
def test_a_gpu_without_int8_kernels_shows_in_the_audit() -> None:
    """On compute capability 7.5 an INT8 bundle would run in float, and dequantize its weights for every frame."""
    old = _audit(_built("int8 in fp16"), 75)
    assert set(_types(old)) == {"fp16"}
    assert old.conversions > 8


@needs_compiler
def test_a_scale_that_the_compiler_does_not_take_for_one_number_shows_in_the_audit() -> None:
    """Such a graph parses, builds and is right, but runs in float."""
    assert set(_types(_audit(_built("int8, scales of rank 1")))) == {"fp32"}


@needs_compiler
def test_depthwise_convolutions_are_padded_in_int8() -> None:
    """The reason why they stay float on this target."""
    padded = _audit(build_rtx(_quantized(_depthwise()).SerializeToString(), RtxOptions(compute_capabilities=(86,))))
    plain = _audit(build_rtx(_depthwise().SerializeToString(), RtxOptions(compute_capabilities=(86,))))
    assert padded.convolutions["class_map_wide"].growth == 4
    assert plain.convolutions["class_map_wide"].growth == 1
    assert "4.0 times the weights" in padded.text()


def _depthwise() -> Any:
    kernel = np.random.default_rng(0).normal(0, 0.1, (32, 1, 3, 3)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "w"], ["class_map_wide"], group=32, pads=[1] * 4)]
    return _graph(nodes, {"w": kernel}, "class_map_wide", channels=32)


def _graph(nodes: list[Any], weights: dict[str, Any], output: str, channels: int = 16) -> Any:
    """From `image` through float planes `x` and `nodes` to the class of the greatest channel of `output`."""
    before = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["x"], perm=[0, 3, 1, 2]),
    ]
    after = [
        helper.make_node("ArgMax", [output], ["ids"], axis=1, keepdims=0),
        helper.make_node("Cast", ["ids"], ["class_map"], to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        [*before, *nodes, *after],
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 32, 32, channels])],
        [helper.make_tensor_value_info("class_map", TensorProto.UINT8, [1, 32, 32])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _pooled_with_indices() -> Any:
    attributes: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1] * 4, "strides": [1, 1]}
    nodes = [
        helper.make_node("MaxPool", ["x"], ["values", "places"], **attributes),
        helper.make_node("Cast", ["places"], ["floats_of_places"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["values", "floats_of_places"], ["sum"]),
    ]
    return _graph(nodes, {}, "sum")


def _scale_too_small_for_float16() -> Any:
    model = _quantized(_demo())
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("/scale") and tensor.dims)
    scales = numpy_helper.to_array(tensor).copy()
    scales[0] = 1e-9
    tensor.CopyFrom(numpy_helper.from_array(scales, tensor.name))
    return _in_float16(model)


@needs_compiler
@pytest.mark.parametrize(
    ("model", "node", "reason"),
    [
        (_pooled_with_indices, "MaxPool that makes `values`", "MaxPool nodes.*upsample in another way"),
        (lambda: _quantized(_demo(), bias=True), "DequantizeLinear that makes `.*/dq`", "type Int32"),
        (_scale_too_small_for_float16, "DequantizeLinear that makes `.*/dq`", "must all be positive.*scales above 0"),
    ],
)
def test_a_refused_node_is_named_with_the_reason_and_what_to_do(model: Any, node: str, reason: str) -> None:
    with pytest.raises(
        ModelError, match=f"NVIDIA's parser refuses the {node}: got .*{reason}.*, or leave out"
    ) as error:
        build_rtx(model().SerializeToString())
    assert "vidseg_node_" not in str(error.value)  # a name that nobody knows


@needs_compiler
def test_what_only_other_outputs_need_is_no_obstacle() -> None:
    model = _pooled_with_indices()
    model.graph.node[-2].input[0] = "x"  # the class map does without the pooling
    model.graph.output.append(helper.make_tensor_value_info("sum", TensorProto.FLOAT, [1, 16, 32, 32]))
    content = model.SerializeToString()
    assert build_rtx(content, RtxOptions(compute_capabilities=(86,))).plans
    with pytest.raises(ModelError, match="MaxPool"):
        build_rtx(content, RtxOptions(outputs=("class_map", "sum")))
    with pytest.raises(ModelError, match="no output `scores`: got class_map, sum"):
        build_rtx(content, RtxOptions(outputs=("scores",)))


@needs_compiler
def test_each_compute_capability_gets_a_plan() -> None:
    build = build_rtx(_demo().SerializeToString())
    assert [plan.compute_capability for plan in build.plans] == list(COMPUTE_CAPABILITIES)
    for plan in build.plans:
        assert plan.plan_bytes > (plan.weights_bytes or 0) > 0
        assert plan.activations_bytes
        assert plan.audit is not None
        assert plan.audit.compute_capability == plan.compute_capability
        assert plan.build_s > 0
    assert build.peak_memory_bytes > 2**24
    assert build.version


def test_a_missing_compiler_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtx, "COMPILER", "no_such_compiler")
    with pytest.raises(ConfigurationError, match=r'pip install "vidseg\[rtx\]"'):
        build_rtx(b"")


@needs_compiler
@pytest.mark.timeout(20)
def test_a_compiler_that_takes_too_long_is_stopped() -> None:
    with pytest.raises(EngineError, match=r"slow: NVIDIA's compiler was stopped: got no plan after 0\.01 s"):
        build_rtx(_demo().SerializeToString(), RtxOptions(name="slow", timeout_s=0.01))


@pytest.mark.parametrize(
    ("script", "line"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "it was killed, as the system does when memory runs out"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "it crashed with SIGSEGV"),
        ("raise ImportError('libtensorrt_rtx.so.1')", "exit code 1, ImportError: libtensorrt_rtx.so.1"),
    ],
)
def test_the_end_of_a_process_is_told_in_one_line(script: str, line: str) -> None:
    command = [sys.executable, "-c", f"import os, signal; {script}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert rtx._ending(done.returncode, done.stderr)[0] == line


@pytest.mark.parametrize(
    ("log", "kind", "line"),
    [
        ("Unexpected exception std::bad_alloc", EngineError, "ran out of memory"),
        ("[x] Error Code 10: no tactic", ModelError, r"no plan for compute capability 8\.6: got no tactic\."),
    ],
)
def test_memory_that_runs_out_is_not_taken_for_a_bad_model(log: str, kind: type[Exception], line: str) -> None:
    failed = Compilation(compute_capability=86, build_s=1.0, plan_bytes=0, log=(log,))
    with pytest.raises(kind, match=line):
        rtx._plan("model", failed, {})


def test_a_log_of_another_form_gives_no_audit_instead_of_a_wrong_one() -> None:
    assert audit_plan("Layers:\nLayer(Convolution): conv, Int8\n", {}, 86) is None


def test_gpus_that_the_compiler_does_not_know_are_refused() -> None:
    with pytest.raises(UsageError, match=r"compute capability 7\.0.*Choose of 7\.5, 8\.0"):
        RtxOptions(compute_capabilities=(70, 86))
    with pytest.raises(UsageError, match="none"):
        replace(RtxOptions(), compute_capabilities=())
