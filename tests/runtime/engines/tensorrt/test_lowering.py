"""The wrong graph is refused by TensorRT, or computes in another precision than the user asked for."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest

from tests.runtime.engines.tensorrt.graphs import bundle_of
from vidseg.runtime.bundle import Bundle
from vidseg.runtime.engines.tensorrt.library import Abilities
from vidseg.runtime.engines.tensorrt.lowering import lowering_of
from vidseg.runtime.engines.tensorrt.settings import BuildSettings, Precision
from vidseg.runtime.errors import EngineError

RANGES = {"format": 1, "ranges": {"a": 1.5, "b": 2.0}, "float": ["c"]}


def _abilities(*names: str) -> Abilities:
    return Abilities(**{field.name: field.name in names for field in fields(Abilities)})


OLD = _abilities("weakly_typed", "ranges")
BOTH = _abilities("weakly_typed", "ranges", "strongly_typed")
NEW = _abilities("strongly_typed")


def _bundle(*names: str, ranges: bytes | None = json.dumps(RANGES).encode()) -> Bundle:
    others = {} if ranges is None else {"int8_ranges__json": ranges}
    return bundle_of(dict.fromkeys(names, b"graph"), **others)


FULL = _bundle("float", "fp16", "int8", "int8-fp16", "int8-ranges")


@pytest.mark.parametrize(
    ("precision", "abilities", "variant", "flags"),
    [
        ("fp32", OLD, "float", ()),
        ("fp16", OLD, "float", ("FP16",)),
        ("int8", OLD, "int8", ("INT8", "FP16")),
        ("fp16", BOTH, "float", ("FP16",)),
        ("fp32", NEW, "float", ()),
        ("fp16", NEW, "fp16", ()),
        ("int8", NEW, "int8-fp16", ()),
    ],
)
def test_each_precision_has_its_graph(
    precision: Precision, abilities: Abilities, variant: str, flags: tuple[str, ...]
) -> None:
    found = lowering_of(FULL, BuildSettings(precision=precision), abilities)
    assert (found.variant, found.file, found.flags, found.ranges) == (variant, f"{variant}.onnx", flags, None)
    assert found.typing == ("strong" if abilities is NEW else "weak")


def test_int8_without_its_float16_form_is_better_than_none() -> None:
    assert lowering_of(_bundle("float", "int8"), BuildSettings(precision="int8"), NEW).variant == "int8"


@pytest.mark.parametrize(
    ("precision", "abilities", "line"),
    [
        ("fp16", NEW, "no variant `fp16`.*float. Export the bundle again"),
        ("int8", NEW, "no variant `int8-fp16`.*--calib"),
        ("int8", OLD, "no variant `int8`, which TensorRT needs for int8: got float. Export the bundle again, with"),
        ("fp16", _abilities(), "builds no plans"),
    ],
)
def test_a_graph_that_is_not_there_is_named_with_what_to_do(
    precision: Precision, abilities: Abilities, line: str
) -> None:
    with pytest.raises(EngineError, match=line):
        lowering_of(_bundle("float"), BuildSettings(precision=precision), abilities)


def test_a_dla_gets_the_float_graph_and_ranges() -> None:
    found = lowering_of(FULL, BuildSettings(precision="int8", dla_core=0), OLD)
    assert (found.variant, found.typing) == ("int8-ranges", "weak")
    assert found.flags == ("INT8", "FP16", "PREFER_PRECISION_CONSTRAINTS")
    assert found.ranges is not None
    assert (found.ranges.ranges, found.ranges.in_float) == ({"a": 1.5, "b": 2.0}, ("c",))
    half = lowering_of(FULL, BuildSettings(precision="fp16", dla_core=0), OLD)
    assert (half.variant, half.flags, half.ranges) == ("float", ("FP16",), None)


def test_a_dla_needs_a_release_with_ranges_and_a_bundle_with_them() -> None:
    on_dla = BuildSettings(precision="int8", dla_core=0)
    with pytest.raises(EngineError, match="cannot be told the data types of a DLA's layers"):
        lowering_of(FULL, on_dla, NEW)
    with pytest.raises(EngineError, match="--dla"):
        lowering_of(_bundle("float", "int8"), on_dla, OLD)
    with pytest.raises(EngineError, match=r"no int8-ranges\.json"):
        lowering_of(_bundle("int8-ranges", ranges=None), on_dla, OLD)


@pytest.mark.parametrize(
    "ranges",
    [
        b"",
        b"[" * 100_000,
        b"[]",
        *(
            json.dumps(RANGES | changed).encode()
            for changed in (
                {"format": 2}, {"more": 1}, {"ranges": {"a": 0}}, {"ranges": {"a": -1}}, {"ranges": {"a": 1e39}},
                {"ranges": {"a": "1"}}, {"ranges": {"a": None}}, {"float": "c"},
            )
        ),
        json.dumps(RANGES).replace("1.5", "NaN").encode(),
    ],
    ids=lambda content: content[:60].decode(),
)  # fmt: skip
def test_hostile_ranges_are_refused(ranges: bytes) -> None:
    with pytest.raises(EngineError, match=r"int8-ranges\.json is damaged"):
        lowering_of(_bundle("int8-ranges", ranges=ranges), BuildSettings(precision="int8", dla_core=0), OLD)


def test_the_document_is_the_one_that_export_writes() -> None:
    import msgspec

    from vidseg.export.dla import FORMAT, RangesDocument

    document = RangesDocument(format=FORMAT, ranges={"a": 1.5}, in_float=("c",))
    found: Any = lowering_of(
        _bundle("int8-ranges", ranges=msgspec.json.encode(document)), BuildSettings(precision="int8", dla_core=0), OLD
    ).ranges
    assert (found.ranges, found.in_float) == ({"a": 1.5}, ("c",))
