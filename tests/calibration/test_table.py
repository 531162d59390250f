"""A table is all that a device or an export to come knows of the frames: what is written has to be what is read."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidseg.calibration.ranges import METHODS
from vidseg.calibration.table import (
    FORMAT,
    CalibrationTable,
    TensorRange,
    parse_table,
    parse_tensorrt_cache,
    table_json,
    tensorrt_cache,
)
from vidseg.runtime.errors import ConfigurationError

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
magnitudes = st.floats(0, 3.4e38)
hashes = st.text("0123456789abcdef", min_size=64, max_size=64)
tensors = st.builds(
    TensorRange,
    amax=st.fixed_dictionaries(dict.fromkeys(METHODS, magnitudes)),
    method=st.sampled_from(METHODS),
    signed=st.booleans(),
)
tables = st.builds(
    CalibrationTable,
    format=st.just(FORMAT),
    model_sha256=hashes,
    frames_sha256=hashes,
    frames=st.integers(1, 10_000),
    equalization=st.dictionaries(names, st.lists(magnitudes, max_size=3).map(tuple), max_size=3),
    tensors=st.dictionaries(names, tensors, max_size=4),
)


def document(**changes: Any) -> dict[str, Any]:
    tensor = {"amax": {"max": 2.0}, "method": "max", "signed": False}
    fields = {"format": FORMAT, "model_sha256": "a" * 64, "frames_sha256": "b" * 64, "frames": 3, "equalization": {}}
    return {**fields, "tensors": {"x": tensor}} | changes


@given(tables)
def test_what_is_written_is_what_is_read(table: CalibrationTable) -> None:
    assert parse_table(table_json(table), "table") == table


@given(tables)
def test_equal_tables_have_equal_bytes(table: CalibrationTable) -> None:
    turned = msgspec.structs.replace(
        table,
        tensors={
            name: msgspec.structs.replace(tensor, amax=dict(reversed(tensor.amax.items())))
            for name, tensor in reversed(table.tensors.items())
        },
        equalization=dict(reversed(table.equalization.items())),
    )
    assert turned == table
    assert table_json(turned) == table_json(table)


def test_the_chosen_range_is_that_of_its_method() -> None:
    tensor = TensorRange(amax={"max": 9.0, "mse": 4.0}, method="mse", signed=True)
    table = CalibrationTable(
        format=FORMAT, model_sha256="a" * 64, frames_sha256="b" * 64, frames=1, tensors={"x": tensor}
    )
    assert table.amax() == {"x": 4.0}


@pytest.mark.parametrize(
    "changes",
    [
        {"format": FORMAT + 1},
        {"format": "1"},
        {"frames": 0},
        {"model_sha256": "a" * 63},
        {"frames_sha256": "A" * 64},
        {"surprise": 1},
        {"tensors": {"x": {"amax": {"max": -1}, "method": "max", "signed": False}}},
        {"tensors": {"x": {"amax": {"max": 1e39}, "method": "max", "signed": False}}},
        {"tensors": {"x": {"amax": {"max": None}, "method": "max", "signed": False}}},
        {"tensors": {"x": {"amax": {"max": 1}, "method": "mse", "signed": False}}},
        {"tensors": {"x": {"amax": {}, "method": "max", "signed": False}}},
        {"tensors": {"x": {"amax": {"max": 1}, "method": "max", "signed": False, "surprise": 1}}},
        {"tensors": []},
    ],
)
def test_a_table_of_another_schema_is_refused_by_its_name(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"frames\.json"):
        parse_table(json.dumps(document(**changes)).encode(), "frames.json")


def test_the_document_that_is_changed_above_is_a_table() -> None:
    assert parse_table(json.dumps(document()).encode(), "table").amax() == {"x": 2.0}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[" * 100_000,
        b'{"tensors":' * 100_000,
        b'{"a": "\xff"}',
        b'{"\\ud800": 1}',
        b"1e999",
    ],
    ids=["empty", "bytes", "null", "deep", "deep objects", "no UTF-8", "half a character", "large"],
)
def test_hostile_bytes_are_refused_in_one_line(content: bytes) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_table(content, "table")
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 40))
def test_a_damaged_table_is_read_or_refused(junk: bytes, place: int, gone: int) -> None:
    content = json.dumps(document()).encode()
    damaged = content[:place] + junk + content[place + gone :]
    assert "\n" not in complaint_of(lambda: parse_table(damaged, "table"))


def complaint_of(read: Callable[[], object]) -> str:
    """What a reader says of its input; nothing where it takes it."""
    try:
        read()
    except ConfigurationError as error:
        return str(error)
    return ""


def test_the_cache_of_tensorrt_is_what_tensorrt_writes() -> None:
    """1/127 * 127: a scale of 0.0078125 is 3c000000 in big-endian float32."""
    assert tensorrt_cache({"b": 0.9921875, "a": 127.0}) == "TRT-8600-EntropyCalibration2\na: 3f800000\nb: 3c000000\n"
    assert tensorrt_cache({}, "8502") == "TRT-8502-EntropyCalibration2\n"


def test_a_cache_that_tensorrt_wrote_is_read() -> None:
    text = "TRT-8601-EntropyCalibration2\nimages: 3c010a14\n(Unnamed Layer* 3) [Conv]_output: 3D888889\n"
    found = parse_tensorrt_cache(text, "cache")
    assert found["images"] == struct.unpack(">f", b"\x3c\x01\x0a\x14")[0] * 127
    assert found["(Unnamed Layer* 3) [Conv]_output"] == pytest.approx(0.0666667 * 127, rel=1e-6)


lines_names = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029"), max_size=20)
odd_names = st.sampled_from(
    ["a: b", ": ", " x ", "half\u2028", "next\x85line", "form\x0cfeed", "(Unnamed Layer* 1)_output"]
)


@given(st.dictionaries(lines_names | odd_names, magnitudes, max_size=5))
def test_a_cache_gives_back_the_ranges_that_it_was_written_from(amax: dict[str, float]) -> None:
    text = tensorrt_cache(amax)
    found = parse_tensorrt_cache(text, "cache")
    assert set(found) == set(amax)
    for name, value in amax.items():  # a scale of 0 would be no scale
        assert found[name] == pytest.approx(max(value, 127 * 2.0**-126), rel=1e-6)
    assert tensorrt_cache(found) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "images: 3c010a14\n",
        "TRT-8600-E\nimages\n",
        "TRT-8600-E\nimages: \n",
        "TRT-8600-E\nimages: 3c01\n",
        "TRT-8600-E\nimages: 3c010a1400\n",
        "TRT-8600-E\nimages: zzzzzzzz\n",
        "TRT-8600-E\nimages: ３c010a14\n",
        "TRT-8600-E\nimages: 00000000\n",
        "TRT-8600-E\nimages: bc010a14\n",
        "TRT-8600-E\nimages: 7f800000\n",
        "TRT-8600-E\nimages: 7fc00000\n",
        "TRT-8600-E\n3c010a14\n",
        "TRT-8600-E\nimages: 3c010a14\n\nmore: 3c010a14\n",
    ],
)
def test_what_is_no_cache_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"calib\.cache") as caught:
        parse_tensorrt_cache(text, "calib.cache")
    assert "\n" not in str(caught.value)


@given(st.text(max_size=60), st.integers(0, 80))
def test_a_damaged_cache_is_read_or_refused(junk: str, place: int) -> None:
    text = tensorrt_cache({"images": 1.0, "other": 3.0})
    damaged = text[:place] + junk + text[place:]
    complaint = complaint_of(lambda: parse_tensorrt_cache(damaged, "cache"))
    assert "\n" not in complaint
    if not complaint:
        assert all(0 < value < float("inf") for value in parse_tensorrt_cache(damaged, "cache").values())
