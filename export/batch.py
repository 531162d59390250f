"""Opening the batch axis of a finished graph, for engines that infer several pictures at once.

Everything else here works on graphs of one picture: this is the last thing that is done to a graph. Few operators hold
the number of pictures in a constant; those are rewritten, and running the graph shows whether that was all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseg.export.graph import Graph, attribute_of
from vidseg.export.model import PREFIX
from vidseg.runtime.engines.graph import INPUT
from vidseg.runtime.engines.onnxruntime import BATCH_AXIS, import_onnxruntime
from vidseg.runtime.frame import Image

MAX_NOISE = 1e-5
"""Between scores of a picture in a batch and alone, as a share of the largest one. Eleven models of six families gave
the same bits; a library may sum in another order for other sizes."""

MAX_TIES = 1e-4
"""Share of the pixels that may get another class by that: those whose scores tie."""

_PREFIX = f"{PREFIX}batch/"


def with_batch_axis(content: bytes, pictures: tuple[Image, Image]) -> bytes | None:
    """A graph that takes any number of pictures; None where it cannot be shown that it gives each what it gave alone.

    The first axis of its input and outputs is then BATCH_AXIS. The graph is run on two pictures at once, and before on
    each of them as it was.

    Args:
        content: a graph of the contract, for one picture.
        pictures: two different ones of the input's size, (h, w, 3) uint8 BGR, to show it on.
    """
    graph = Graph(content)
    _open(graph)
    opened = graph.serialized()
    return opened if _gives_the_same(content, opened, pictures) else None


def _open(graph: Graph) -> None:
    nodes: list[Any] = []
    for node in graph.nodes:
        if node.op_type == "Reshape":
            _open_reshape(graph, node)
        elif node.op_type == "Resize" and len(node.input) > 3:
            nodes += _opened_resize(graph, node)
        elif node.op_type == "Concat":
            nodes += _opened_concat(graph, node)
        nodes.append(node)
    graph.replace_nodes(nodes)
    graph.has_open_batch = True


def _open_reshape(graph: Graph, node: Any) -> None:
    """Let the pictures, which lie one behind the other in memory, grow the first axis."""
    before, after = graph.shape(node.input[0]), graph.shape(node.output[0])
    if not graph.is_weight(node.input[1]) or not before or not after or attribute_of(node, "allowzero", 0):
        return
    if after[0] == 1:
        first = 0 if before[0] == 1 else -1
    elif -1 not in graph.weight(node.input[1]):
        first = -1
    else:
        return  # that axis grows already
    node.input[1] = _numbers(graph, [first, *after[1:]])


def _opened_resize(graph: Graph, node: Any) -> list[Any]:
    """Sizes as scales where those say the same to the bit, else with the number of pictures that there are."""
    before, after = graph.shape(node.input[0]), graph.shape(node.output[0])
    if not graph.is_weight(node.input[3]) or not before or not after:
        return []
    scales = np.divide(after, before).astype(np.float32)
    if (scales.astype(np.float64) * before == after).all():
        name = f"{_PREFIX}scales {'x'.join(map(str, scales.tolist()))}"
        node.input[:] = [*node.input[:2], graph.set_weight(name, scales)]
        return []
    node.input[3] = f"{_PREFIX}{node.output[0]}/sizes"
    return _sizes(graph, node.input[0], node.input[3], after[1:])


def _opened_concat(graph: Graph, node: Any) -> list[Any]:
    """A constant beside activations, planes of zeros or a token of classes, once for each picture."""
    import onnx

    constants = [name for name in node.input if graph.is_weight(name) and graph.shape(name)[:1] == [1]]
    activations = [name for name in node.input if not graph.is_weight(name)]
    if not constants or not activations or attribute_of(node, "axis") in {0, -len(graph.shape(constants[0]))}:
        return []
    name = f"{_PREFIX}{node.output[0]}"
    nodes = _sizes(graph, activations[0], f"{name}/sizes", [1] * (len(graph.shape(constants[0])) - 1))
    for constant in constants:
        repeated = f"{name}/{constant}"
        nodes.append(onnx.helper.make_node("Expand", [constant, f"{name}/sizes"], [repeated], name=repeated))
    node.input[:] = [f"{name}/{tensor}" if tensor in constants else tensor for tensor in node.input]
    return nodes


def _sizes(graph: Graph, tensor: str, name: str, others: Sequence[int]) -> list[Any]:
    """Nodes that give, as `name`, the length of a tensor's first axis and these of the others."""
    import onnx

    made = f"{name}/shape", f"{name}/pictures", name
    return [
        onnx.helper.make_node("Shape", [tensor], [made[0]], name=made[0]),
        onnx.helper.make_node("Gather", [made[0], _numbers(graph, [0])], [made[1]], name=made[1]),
        onnx.helper.make_node("Concat", [made[1], _numbers(graph, others)], [name], name=name, axis=0),
    ]


def _numbers(graph: Graph, values: Sequence[int]) -> str:
    """A weight of int64; the same numbers are stored once."""
    return graph.set_weight(f"{_PREFIX}{'x'.join(map(str, values))}", np.array(values, np.int64))


def _gives_the_same(content: bytes, opened: bytes, pictures: tuple[Image, Image]) -> bool:
    try:
        alone = [_outputs(content, picture[None]) for picture in pictures]
        together = _outputs(opened, np.stack(pictures))
    except Exception:  # noqa: BLE001 - the library's exceptions have no common base
        return False
    wanted = {name: np.concatenate([outputs[name] for outputs in alone]) for name in together}
    return all(_is_the_same(values, wanted[name]) for name, values in together.items())


def _is_the_same(found: NDArray[Any], wanted: NDArray[Any]) -> bool:
    if found.shape != wanted.shape:
        return False
    if found.dtype == np.uint8:
        return float((found != wanted).mean()) <= MAX_TIES
    return float(np.abs(found - wanted).max()) <= MAX_NOISE * float(np.abs(wanted).max())


def _outputs(content: bytes, batch: NDArray[np.uint8]) -> Mapping[str, NDArray[Any]]:
    onnxruntime = import_onnxruntime()
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.add_free_dimension_override_by_name(BATCH_AXIS, len(batch))
    session = onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {INPUT: batch}), strict=True))
