"""The linter says what NVIDIA's compiler would do: where it is wrong, someone waits for a speed that never comes."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.export.broken import moved, rules_of, serialized, with_float_weight, with_integers, with_one_factor
from tests.export.quantizable import SIZE_WH, WIDTH, Drawing
from vidseg.export.lint import quantized_products
from vidseg.export.lint_rules import AXIS, FACTORS, INPUTS, Rule
from vidseg.export.rtx import RtxOptions, build_rtx
from vidseg.export.rtx_build import COMPILER
from vidseg.runtime.errors import ModelError

needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec(COMPILER) is None,
    reason='NVIDIA\'s compiler is not installed: pip install "vidseg[rtx]"',
)

INTEGER_OPERATORS = {
    "ConvInteger": "xw",
    "MatMulInteger": "xw",
    "DynamicQuantizeLinear": "f",
    "QLinearConv": "xszwszsz",
}
"""With their inputs, as `with_integers` takes them."""


def _types(content: bytes) -> list[str]:
    audit = build_rtx(content, RtxOptions(compute_capabilities=(86,))).plans[0].audit
    assert audit is not None
    return [one.data_type for one in audit.convolutions.values()]


def _whole(draw: Drawing, *numbers: int) -> str:
    return draw.weight(np.array(numbers, np.int64))


def _squeezed(draw: Drawing, data: str) -> str:
    return draw.node("Squeeze", [draw.node("Unsqueeze", [data, _whole(draw, 1)]), _whole(draw, 1)])


def _flattened(draw: Drawing, data: str) -> str:
    return draw.node("Reshape", [draw.node("Flatten", [data]), _whole(draw, 1, WIDTH, *SIZE_WH[::-1])])


def _in_blocks(draw: Drawing, data: str) -> str:
    return draw.node("DepthToSpace", [draw.node("SpaceToDepth", [data], blocksize=2)], blocksize=2)


def _sliced_and_spread(draw: Drawing, data: str) -> str:
    sliced = draw.node("Slice", [data, *(_whole(draw, number) for number in (0, 1, 2))])
    return draw.node("Expand", [sliced, _whole(draw, 1, WIDTH, *SIZE_WH[::-1])])


def _swapped(draw: Drawing, data: str, between: str = "Identity") -> str:
    first = draw.node("Split", [data, _whole(draw, WIDTH // 2, WIDTH // 2)], axis=1)
    draw.nodes[-1].output.append("second")
    return draw.node("Concat", ["second", draw.node(between, [first])], axis=1)


def _padded(draw: Drawing, data: str) -> str:
    return draw.node("Pad", [data, _whole(draw, 0, 0, 1, 1, 0, 0, 1, 1)])


BETWEEN: dict[str, tuple[Callable[[Drawing, str], str], set[Rule], int]] = {
    "transposed": (lambda draw, data: draw.node("Transpose", [data], perm=[0, 1, 3, 2]), set(), 1),
    "squeezed": (_squeezed, set(), 1),
    "flattened": (_flattened, set(), 1),
    "in blocks": (_in_blocks, set(), 1),
    "gathered": (lambda draw, data: draw.node("Gather", [data, _whole(draw, *range(WIDTH))], axis=1), set(), 1),
    "spread": (_sliced_and_spread, set(), 1),
    "swapped": (_swapped, set(), 1),
    "padded": (_padded, set(), 1),
    "pooled": (lambda draw, data: draw.node("MaxPool", [data], kernel_shape=[3, 3]), set(), 1),
    "largest": (lambda draw, data: draw.node("GlobalMaxPool", [data]), set(), 1),
    "mean": (lambda draw, data: draw.node("AveragePool", [data], kernel_shape=[3, 3]), {FACTORS, INPUTS}, 0),
    "activation": (lambda draw, data: draw.node("Sigmoid", [data]), {FACTORS, INPUTS}, 0),
    "half of it": (lambda draw, data: _swapped(draw, data, "Relu"), {FACTORS, INPUTS}, 0),
}


@needs_compiler
@pytest.mark.parametrize("case", BETWEEN)
def test_what_counts_as_quantized_is_what_nvidias_compiler_runs_in_int8(case: str) -> None:
    between, rules, wanted = BETWEEN[case]
    content = moved(between)
    assert rules_of(content) == rules
    assert quantized_products(content) == (wanted, 3)
    assert _types(content).count("int8") == wanted


@needs_compiler
@pytest.mark.parametrize("position", [0, 1])
def test_one_factor_alone_is_computed_in_float_by_nvidias_compiler(position: int) -> None:
    assert set(_types(with_one_factor(position))) == {"fp32"}


@needs_compiler
@pytest.mark.parametrize(("axis", "rules", "wanted"), [(0, set(), 1), (None, {AXIS}, 1), (1, {AXIS}, 0)])
def test_a_float_weight_is_rounded_by_nvidias_compiler_unless_its_axis_is_wrong(
    axis: int | None, rules: set[Rule], wanted: int
) -> None:
    """One scale for all channels is only less accurate."""
    content = with_float_weight(axis)
    assert rules_of(content) == rules
    assert _types(content).count("int8") == wanted


@needs_compiler
@pytest.mark.parametrize("case", INTEGER_OPERATORS)
def test_integer_operators_are_refused_by_nvidias_compiler(case: str) -> None:
    model = onnx.load_from_string(with_integers(case, INTEGER_OPERATORS[case]))
    output = model.graph.node[-1].output[0]
    kind = {"QLinearConv": TensorProto.INT8, "DynamicQuantizeLinear": TensorProto.UINT8}.get(case, TensorProto.INT32)
    model.graph.output.append(helper.make_tensor_value_info(output, kind, None))
    with pytest.raises(ModelError, match=f"refuses the {case}"):
        build_rtx(serialized(model), RtxOptions(compute_capabilities=(86,), outputs=(output,)))
