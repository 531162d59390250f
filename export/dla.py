"""The INT8 form for NVIDIA's DLA, which takes no Q/DQ: a float graph, and the range of every activation kept in 8 bits.

TensorRT quantizes such a graph itself, weights per channel and activations by their ranges, and runs a layer in INT8
where all that it reads and gives has a range. What that gives is simulated with Q/DQ for the accuracy gate.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from vidseg.export.graph import Graph, class_scores
from vidseg.export.groups import OPERATORS, FusionGroup
from vidseg.export.qdq import QuantizedForm, Ranges

FORMAT = 1

DLA = QuantizedForm(results=True, stored=True)
"""How the gate sees it: as for TensorRT, and results too, because only these 8 bits are in memory."""


class RangesDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What stands beside the graph, as JSON.

    Attributes:
        format: of the document.
        ranges: largest magnitude by activation, above 0; those that are not named have no range.
        in_float: what the convolutions and products give that stay float, though activations around them may have
            ranges.
    """

    format: int
    ranges: dict[str, float]
    in_float: tuple[str, ...] = msgspec.field(name="float")


def groups_for_dla(graph: Graph, groups: Sequence[FusionGroup]) -> list[FusionGroup]:
    """Those that it can compute in INT8: convolutions, whose results have a range; scores stay float."""
    scores = class_scores(graph)
    return [group for group in groups if group.operator in {"Conv", "ConvTranspose"} and group.result not in scores]


def ranges_document(graph: Graph, groups: Sequence[FusionGroup], ranges: Ranges) -> bytes:
    """The document for a graph in which these groups are quantized: the same input gives the same bytes.

    Args:
        graph: the float graph.
        groups: of `groups_for_dla`.
        ranges: of every activation that the groups read or give.

    Raises:
        KeyError: the range of an activation is missing.
    """
    names = {group.name for group in groups}
    in_float = [node.output[0] for node in graph.nodes if node.op_type in OPERATORS and node.output[0] not in names]
    kept = {name for group in groups for name in (*group.inputs, group.skip, group.result) if name is not None}
    before = {_before_activation(graph, name, ranges): name for name in kept}
    amax = {name: ranges.amax[name] for name in kept}
    amax |= {name: amax[behind] for name, behind in before.items() if name is not None and name not in in_float}
    document = RangesDocument(format=FORMAT, ranges=dict(sorted(amax.items())), in_float=tuple(in_float))
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def _before_activation(graph: Graph, tensor: str, ranges: Ranges) -> str | None:
    """What only a Relu or Clip reads to make a tensor that is never negative: its range loses nothing there either."""
    node = graph.producer(tensor)
    if node is None or node.op_type not in {"Relu", "Clip"} or tensor not in ranges.nonnegative:
        return None
    return None if graph.only_reader(node.input[0]) is None else str(node.input[0])
