"""Anyone's file is linted: of a damaged one a traceback says nothing to its owner."""

from __future__ import annotations

import random
from contextlib import suppress

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from tests.export.broken import master, serialized, weight_dequantizer
from vidseg.export.lint import DQ, Q, lint, quantized_products
from vidseg.runtime.errors import ModelError


@given(st.sampled_from(["relu", "residual", "gemm", "matmul left"]), st.randoms(use_true_random=False))
def test_a_damaged_graph_gives_findings_or_one_line(kind: str, dice: random.Random) -> None:
    model = master(kind)
    for _ in range(dice.randint(1, 3)):
        _damage(model, dice)
    content = bytearray(serialized(model))
    for _ in range(dice.choice([0, 0, 1, 4])):
        content[dice.randrange(len(content))] = dice.randrange(256)
    with suppress(ModelError):
        lint(bytes(content))
        quantized_products(bytes(content))


def _damage(model: onnx.ModelProto, dice: random.Random) -> None:
    """Change one thing of a graph."""
    node = dice.choice(model.graph.node)
    weight = dice.choice(model.graph.initializer)
    what = dice.randrange(8)
    if what == 0:
        node.op_type = dice.choice([Q, DQ, "Conv", "MatMul", "Transpose", "ArgMax", "Concat", "QLinearConv", "Softmax"])
    elif what == 1:
        node.domain = dice.choice(["com.microsoft", "elsewhere"])
        model.opset_import.extend(helper.make_opsetid(domain, 1) for domain in ("com.microsoft", "elsewhere"))
    elif what == 2:
        node.input[dice.randrange(len(node.input))] = dice.choice([weight.name, node.input[0], ""])
    elif what == 3:
        del node.input[dice.randrange(len(node.input)) :]
        node.input.append(weight.name)
    elif what == 4:
        node.attribute.append(helper.make_attribute("axis", dice.choice([7, -9, 2])))
    elif what == 5:
        weight.data_type = dice.randrange(25)
    elif what == 6:
        weight.dims.extend([dice.choice([0, 1, 2, 2**40])])
    else:
        model.graph.initializer.remove(weight)


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_weight_of_another_size_than_it_says_is_said_in_one_line(position: int) -> None:
    """Weight, scale and zero point."""
    model = master()
    name = weight_dequantizer(model).input[position]
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    weight.dims[0] = 2
    with pytest.raises(ModelError, match="not a valid ONNX model"):
        lint(serialized(model))


def test_what_is_no_model_is_said_in_one_line() -> None:
    for content in (b"", b"no model", b"\x00" * 64, serialized(master())[:-40]):
        with pytest.raises(ModelError, match=r"^not a valid ONNX model: got .+ Export it again\.$"):
            lint(content)
