"""A network in float16 that gives other classes than the model must not be in a bundle, nor be missed where it need."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from tests.export.models import ModelSpec, build_model
from tests.export.quantizable import WIDTH, Drawing, images
from vidseg.export.exporter import ExportRequest, export_model
from vidseg.export.float_variants import accurate_half
from vidseg.export.graph import Graph
from vidseg.export.half import in_half, rounded
from vidseg.export.verify import agreement_of
from vidseg.runtime.bundle import Bundle, open_bundle
from vidseg.runtime.engines import predict
from vidseg.runtime.engines.onnxruntime import OnnxRuntimeEngine

FRAMES = "scene://street?pace=max&fps=0.5&frames=4&size=64x48"


def exported(folder: Path, offset: float) -> tuple[Bundle, list[str]]:
    """A model whose scores lie around an offset, a few thousandths apart: float16 has steps of 1/64 above 16."""
    model = build_model(ModelSpec())
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    small = numpy_helper.to_array(weights["w2"]) / 1000
    weights["w2"].CopyFrom(numpy_helper.from_array(small.astype(np.float32), "w2"))
    model.graph.initializer.append(numpy_helper.from_array(np.full(4, offset, np.float32), "b2"))
    model.graph.node[-1].input.append("b2")
    onnx.save(model, str(folder / "model.onnx"))
    (folder / "names.txt").write_text("one\ntwo\nthree\nfour\n")
    lines: list[str] = []
    out = folder / "model.vidseg"
    request = ExportRequest(model=folder / "model.onnx", out=out, labels=str(folder / "names.txt"), frames=FRAMES)
    export_model(request, lines.append)
    return open_bundle(out), lines


def types_of_convolutions(content: bytes) -> list[int]:
    graph = Graph(content)
    return [graph.element_type(node.output[0]) for node in graph.nodes if node.op_type == "Conv"]


def test_what_float16_keeps_apart_is_computed_in_it(tmp_path: Path) -> None:
    bundle, _ = exported(tmp_path, 0.0)
    variant = bundle.variant("fp16")
    assert (variant.file, variant.precision, variant.targets) == ("fp16.onnx", "fp16", ("tensorrt",))
    assert variant.accuracy["exact"].agreement >= 0.999
    assert types_of_convolutions(bundle.members["fp16.onnx"]) == [TensorProto.FLOAT16, TensorProto.FLOAT16]
    assert types_of_convolutions(bundle.members["model.onnx"]) == [TensorProto.FLOAT, TensorProto.FLOAT]


def test_a_beginning_that_float16_spoils_stays_float32() -> None:
    """Numbers around 3000 are in steps of 2 there."""
    draw = Drawing()
    offset = draw.weight(np.array(3000, np.float32))
    raised = draw.node("Add", [draw.planes(), offset])
    data = draw.node("Relu", [draw.conv(draw.node("Sub", [raised, offset]), (WIDTH, 3, 3, 3))])
    for _ in range(6):
        data = draw.node("Relu", [draw.conv(data, (WIDTH, WIDTH, 3, 3))])
    content = draw.finished(data)
    pictures = images()
    with OnnxRuntimeEngine(content) as engine:
        wanted = [predict(engine, image).class_map for image in pictures]
    with OnnxRuntimeEngine(rounded(in_half(content))) as engine:
        assert agreement_of(engine, pictures, wanted) < 0.99
    half, agreement = accurate_half(content, "model", pictures, wanted)
    assert agreement >= 0.999
    types = types_of_convolutions(half)
    assert types[0] == TensorProto.FLOAT
    assert types[-2] == TensorProto.FLOAT16


def test_a_model_that_float16_does_not_carry_is_exported_without_it(tmp_path: Path) -> None:
    bundle, lines = exported(tmp_path, 20.0)
    assert [variant.name for variant in bundle.manifest.variants] == ["float"]
    assert "fp16.onnx" not in bundle.members
    (line,) = [line for line in lines if "no variant fp16" in line]
    assert "of the pixels get the original's class" in line
