"""Who asked for INT8 has to see where it runs; each release of TensorRT says it in another form."""

from __future__ import annotations

import json
import logging
from collections import deque
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidseg.runtime.engines.tensorrt.inspection import EngineAudit, audit_engine, inspect_plan
from vidseg.runtime.engines.tensorrt.library import Abilities, Library
from vidseg.runtime.errors import EngineError

_INT8 = "Thirty-two wide channel vectorized row major Int8 format."
_HALF = "Row major linear FP16 format"


def _tensor(format_: str) -> dict[str, Any]:
    return {"Name": "x", "Location": "Device", "Dimensions": [1, 64, 45, 60], "Format/Datatype": format_}


def _layer(kind: str, taken: str, given_: str, **more: Any) -> dict[str, Any]:
    return {"Name": "a", "LayerType": kind, "Inputs": [_tensor(taken)], "Outputs": [_tensor(given_)], **more}


V8 = {
    "Layers": [
        {"Name": "Reformatting CopyNode for Input Tensor 0 to conv1", "LayerType": "Reformat",
         "Inputs": [_tensor("Row major linear FP32")], "Outputs": [_tensor(_INT8)], "ParameterType": "Reformat",
         "Origin": "REFORMAT", "TacticValue": "0x3ea"},
        _layer("CaskConvolution", _INT8, _INT8, ParameterType="Convolution", Weights={"Type": "Int8", "Count": 9}),
        _layer("CaskConvolution", _INT8, "Row major linear FP16", ParameterType="Convolution",
               Weights={"Type": "Int8", "Count": 9}),
        _layer("CaskDeconvolution", "Row major Float", "x", ParameterType="Deconvolution",
               Weights={"Type": "Half", "Count": 9}),
        _layer("PointWiseV2", _INT8, _INT8),
    ],
    "Bindings": ["image", "class_map [profile 1]"],
}  # fmt: skip

V10 = {
    "Layers": [
        _layer("CaskGemmConvolution", _HALF, _HALF, StreamId=0, Metadata="[ONNX Layer: /stem/Conv]"),
        _layer("CaskConvolution", "Channel major FP16 format where channel % 4 == 0", _HALF, Metadata=""),
        _layer("CaskConvolution", "N/A due to dynamic shapes", "N/A due to dynamic shapes"),
        _layer("kgen", "Row major linear UInt8 format", _HALF),
        _layer("Reformat", _HALF, _HALF, ParameterType="Reformat"),
    ],
    "Bindings": ["image", "class_map"],
}

V11 = {
    "Layers": [
        {"Name": "conv", "LayerType": "correlation", "Inputs": [{"Name": "x", "DataType": "Int8", "Format": "kCHW32"}]},
        {"Name": "gemm", "LayerType": "gemm", "Inputs": [{"Name": "x", "Datatype": "BFloat16"}]},
        {"Name": "first", "LayerType": "CaskConvolution", "Inputs": [{"Name": "x", "Format": "linear FP32 (kLINEAR)"}]},
        {"Name": "wait", "LayerType": "wait"},
    ],
    "I/O Tensors": [{"Name": "image", "IOMode": "Input", "DataType": "UInt8", "Dimensions": [1, 360, 480, 3]}],
    "Engine Metadata": {"version": "11.4"},
}

NAMES = {"Layers": ["Reformatting CopyNode for Input Tensor 0 to conv1", "conv1 + relu1", "conv2"], "Bindings": ["x"]}


@pytest.mark.parametrize(
    ("document", "audit"),
    [
        (V8, EngineAudit(5, 1, {"int8": 2, "unknown": 1},
                         {"Reformat": 1, "CaskConvolution": 2, "CaskDeconvolution": 1, "PointWiseV2": 1})),
        (V10, EngineAudit(5, 1, {"fp16": 2, "unknown": 1},
                          {"CaskGemmConvolution": 1, "CaskConvolution": 2, "kgen": 1, "Reformat": 1})),
        (V11, EngineAudit(4, 0, {"int8": 1, "bf16": 1, "fp32": 1},
                          {"correlation": 1, "gemm": 1, "CaskConvolution": 1, "wait": 1})),
        (NAMES, EngineAudit(3, 1, {}, {})),
    ],
)  # fmt: skip
def test_each_form_is_counted(document: object, audit: EngineAudit) -> None:
    assert audit_engine(json.dumps(document)) == audit


def test_the_line_says_what_is_known_and_no_more() -> None:
    assert (
        audit_engine(json.dumps(V8)).text() == "5 layers, 1 only reformat; convolutions: 2 in int8, 1 of unknown type"
    )
    names = audit_engine(json.dumps(NAMES)).text()
    assert names == "3 layers, 1 only reformat; TensorRT tells no more of them than their names"
    assert audit_engine("").text() == "TensorRT does not say what the plan consists of"


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"Layers": 5}', '{"Layers": [1, null]}', "[" * 100_000])
def test_what_is_no_inspection_counts_as_nothing(text: str) -> None:
    assert audit_engine(text) == EngineAudit(0, 0, {}, {})


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["Name", "LayerType", "Inputs", "Weights"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(st.lists(_JSON, max_size=4))
def test_any_layers_are_counted(layers: list[Any]) -> None:
    audit = audit_engine(json.dumps({"Layers": layers}))
    assert audit.layers == sum(isinstance(layer, dict | str) for layer in layers)
    assert audit.document()["layers"] == audit.layers
    assert audit.text()


class _Engine:
    """Of a plan whose batch is free, as long as no shape was set."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.shape: tuple[int, ...] | None = None
        self.execution_context: _Engine | None = None

    def create_engine_inspector(self) -> _Engine:
        return self

    def create_execution_context(self) -> _Engine:
        return self

    def get_tensor_shape(self, _name: str) -> tuple[int, ...]:
        return (self.batch, 4, 6, 3)

    def get_tensor_profile_shape(self, _name: str, _profile: int) -> list[tuple[int, ...]]:
        return [(1, 4, 6, 3), (8, 4, 6, 3), (8, 4, 6, 3)]

    def set_input_shape(self, _name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return True

    def get_engine_information(self, form: str) -> str:
        assert form == "json"
        known = self.batch != -1 or (self.shape == (8, 4, 6, 3) and self.execution_context is self)
        return json.dumps({"Layers": [_layer("CaskConvolution", _INT8 if known else "N/A due to dynamic shapes", "x")]})


class _TensorRt:
    class LayerInformationFormat:
        JSON = "json"

    class Runtime:
        engine_host_code_allowed = False

        def __init__(self, _logger: object) -> None:
            pass

        def deserialize_cuda_engine(self, plan: bytes) -> _Engine | None:
            assert self.engine_host_code_allowed
            return None if plan == b"damaged" else _Engine(int(plan))


class _Logger:
    def __init__(self) -> None:
        self.errors = deque(["Serialization assertion failed"])


LIBRARY = Library(_TensorRt, "tensorrt", "10.3", _Logger(), Abilities(*[False] * len(fields(Abilities))))


@pytest.mark.parametrize("plan", [b"1", b"-1"])
def test_a_plan_is_inspected_for_its_largest_batch(plan: bytes) -> None:
    assert inspect_plan(LIBRARY, plan, "m").convolutions == {"int8": 1}


def test_a_plan_that_tensorrt_refuses_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(EngineError, match="refuses its plan: got Serialization"):
        inspect_plan(LIBRARY, b"damaged", "m")
