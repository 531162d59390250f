"""What a build has to know and change of a serialized ONNX graph: its outputs, and whether its batch is free.

TensorRT would take the graph as it is and forget an output, but then refuses the 8-bit tensor inside of its network. A
device has no package `onnx`, so the few fields are read from the bytes: Protocol Buffers encoding (protobuf.dev), field
numbers of `onnx.proto` (ONNX IR version 3 and later).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 11, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_ATTRIBUTE = 1, 2, 5
_ATTRIBUTE_GRAPHS = (6, 11)
_VALUE_NAME, _VALUE_TYPE = 1, 2
_TYPE_TENSOR, _TENSOR_SHAPE, _SHAPE_AXIS, _AXIS_NAME = 1, 2, 1, 2

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10
_MAX_DEPTH = 20
"""Of graphs inside of graphs."""


class _Field(NamedTuple):
    number: int
    whole: memoryview
    content: memoryview


def output_names(model: bytes) -> list[str]:
    """Names of a graph's outputs, in their order.

    Raises:
        ValueError: it is no ONNX graph.
    """
    return [_name(field).decode(errors="replace") for field in _fields(_graph(model)) if field.number == _GRAPH_OUTPUT]


def has_free_batch(model: bytes) -> bool:
    """True where the first axis of each input has a name instead of a size.

    Raises:
        ValueError: it is no ONNX graph.
    """
    inputs = [field for field in _fields(_graph(model)) if field.number == _GRAPH_INPUT]
    return bool(inputs) and all(_AXIS_NAME in _first_axis(value) for value in inputs)


def only_outputs(model: bytes, wanted: Collection[str]) -> bytes:
    """A graph without its other outputs, and without the nodes that only those need.

    Raises:
        ValueError: it is no ONNX graph.
    """
    names = {name.encode() for name in wanted}
    kept: list[_Field] = []
    needed = set(names)
    for field in reversed(list(_fields(_graph(model)))):  # a node stands behind those that it reads from
        if field.number == _GRAPH_OUTPUT and _name(field) not in names:
            continue
        if field.number == _GRAPH_NODE:
            if needed.isdisjoint(_strings(field, _NODE_OUTPUT)):
                continue
            needed |= _read_by(field, 0)
        kept.append(field)
    graph = b"".join(field.whole for field in reversed(kept))
    parts = [_graph_field(graph) if one.number == _MODEL_GRAPH else one.whole for one in _fields(memoryview(model))]
    return b"".join(parts)


def _graph(model: bytes) -> memoryview:
    graphs = [field.content for field in _fields(memoryview(model)) if field.number == _MODEL_GRAPH]
    if len(graphs) != 1:
        raise ValueError(f"{len(graphs)} graphs in the model")
    return graphs[0]


def _name(value: _Field) -> bytes:
    return next(iter(_strings(value, _VALUE_NAME)), b"")


def _first_axis(value: _Field) -> set[int]:
    """Which fields the first axis of a tensor has: its size, its name, or none."""
    found = value
    for number in (_VALUE_TYPE, _TYPE_TENSOR, _TENSOR_SHAPE, _SHAPE_AXIS):
        inner = next((field for field in _fields(found.content) if field.number == number), None)
        if inner is None:
            return set()
        found = inner
    return {field.number for field in _fields(found.content)}


def _strings(message: _Field, number: int) -> list[bytes]:
    return [bytes(field.content) for field in _fields(message.content) if field.number == number]


def _read_by(node: _Field, depth: int) -> set[bytes]:
    """Tensors that a node reads, the graphs inside of it too."""
    if depth > _MAX_DEPTH:
        raise ValueError("graphs inside of graphs without end")
    names = set(_strings(node, _NODE_INPUT))
    attributes = [field for field in _fields(node.content) if field.number == _NODE_ATTRIBUTE]
    graphs = [field for one in attributes for field in _fields(one.content) if field.number in _ATTRIBUTE_GRAPHS]
    for field in (field for graph in graphs for field in _fields(graph.content)):
        if field.number == _GRAPH_NODE:
            names |= _read_by(field, depth + 1)
        elif field.number == _GRAPH_OUTPUT:
            names.add(_name(field))
    return names


def _fields(message: memoryview) -> Iterator[_Field]:
    position = 0
    while position < len(message):
        start = position
        tag, position = _varint(message, position)
        kind = tag & 7
        if kind == _BYTES:
            length, position = _varint(message, position)
        elif kind == _VARINT:
            length = _varint(message, position)[1] - position
        elif kind in {_FIXED64, _FIXED32}:
            length = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind} at byte {start}")
        end = position + length
        if end > len(message):
            raise ValueError(f"a field of {length} bytes at byte {start} of {len(message)}")
        yield _Field(tag >> 3, message[start:end], message[position:end])
        position = end


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """A number of 7 bits a byte, lowest first, and where it ends."""
    value = 0
    for index, byte in enumerate(message[position : position + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise ValueError(f"no number at byte {position}")


def _graph_field(content: bytes) -> bytes:
    length, size = b"", len(content)
    while size >= 0x80:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([_MODEL_GRAPH << 3 | _BYTES]) + length + bytes([size]) + content
