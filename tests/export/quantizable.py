"""Small graphs of the contract, one for each kind of operator that can be quantized, and the ranges in them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from vidseg.export.fuse import IMAGE_PREFIX
from vidseg.export.graph import Graph
from vidseg.export.groups import FusionGroup, find_groups
from vidseg.export.qdq import Ranges
from vidseg.export.runner import GraphRunner, extremes_of, watched_tensors
from vidseg.runtime.engines.graph import INPUT
from vidseg.runtime.engines.opening import EngineName
from vidseg.runtime.frame import Image

SIZE_WH = (32, 24)
WIDTH = 16
SCORES = "logits"


class Drawing:
    """A graph that is drawn node by node; each call gives the name of the tensor that it made."""

    def __init__(self, size_wh: tuple[int, int] = SIZE_WH) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self._size_wh = size_wh
        self._dice = np.random.default_rng(7)

    def node(self, operator: str, inputs: Sequence[str], prefix: str = "", **attributes: Any) -> str:
        output = f"{prefix}{operator}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def weight(self, values: NDArray[Any]) -> str:
        name = f"weight{len(self.weights)}"
        self.weights.append(onnx.numpy_helper.from_array(np.asarray(values), name))
        return name

    def random(self, *shape: int) -> str:
        """Normal, with channels of different sizes along the first axis."""
        fan_in = max(int(np.prod(shape[1:])), 1)
        spread = np.exp(self._dice.normal(0, 0.5, (shape[0], *[1] * (len(shape) - 1))))
        return self.weight((self._dice.normal(0, 1, shape) * spread / np.sqrt(fan_in)).astype(np.float32))

    def conv(self, data: str, shape: tuple[int, ...], *, bias: bool = True, **attributes: Any) -> str:
        attributes = {"pads": [shape[2] // 2] * 4, **attributes}
        inputs = [data, self.random(*shape), *([self.random(shape[0])] if bias else [])]
        return self.node("Conv", inputs, **attributes)

    def planes(self) -> str:
        """The picture as float planes, mean taken off, as `vidseg.export.fuse` writes it."""
        data = self.node("Cast", ["image"], IMAGE_PREFIX, to=TensorProto.FLOAT)
        data = self.node("Transpose", [data], IMAGE_PREFIX, perm=[0, 3, 1, 2])
        mean = self.weight(np.array([100, 120, 140], np.float32).reshape(1, 3, 1, 1))
        factor = self.weight(np.array([0.02, 0.018, 0.016], np.float32).reshape(1, 3, 1, 1))
        return self.node("Mul", [self.node("Sub", [data, mean], IMAGE_PREFIX), factor], IMAGE_PREFIX)

    def stem(self) -> str:
        """WIDTH planes that are never negative."""
        return self.node("Relu", [self.conv(self.planes(), (WIDTH, 3, 3, 3))])

    def finished(self, data: str, classes: int = 5) -> bytes:
        """With a classifier and what decides between its classes."""
        self.conv(data, (classes, WIDTH, 1, 1))
        self.nodes[-1].output[0] = SCORES
        index = self.node("ArgMax", [SCORES], axis=1, keepdims=0)
        self.node("Cast", [self.node("Cast", [index], to=TensorProto.FLOAT)], to=TensorProto.UINT8)
        self.nodes[-1].output[0] = "class_map"
        width, height = self._size_wh
        graph = helper.make_graph(
            self.nodes,
            "quantizable",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, height, width, 3])],
            [helper.make_tensor_value_info("class_map", TensorProto.UINT8, [1, None, None])],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        content: bytes = model.SerializeToString()
        return content


def _relu(draw: Drawing) -> str:
    return draw.node("Relu", [draw.conv(draw.stem(), (WIDTH, WIDTH, 3, 3))])


def _signed(draw: Drawing) -> str:
    return draw.conv(draw.conv(draw.stem(), (WIDTH, WIDTH, 3, 3), bias=False), (WIDTH, WIDTH, 3, 3))


def _clip(draw: Drawing) -> str:
    bounds = [draw.weight(np.array(value, np.float32)) for value in (0, 2)]
    return draw.node("Clip", [draw.conv(draw.stem(), (WIDTH, WIDTH, 3, 3)), *bounds])


def _prelu(draw: Drawing) -> str:
    slope = draw.weight(np.linspace(0.05, 0.4, WIDTH, dtype=np.float32).reshape(WIDTH, 1, 1))
    return draw.node("PRelu", [draw.conv(draw.stem(), (WIDTH, WIDTH, 3, 3)), slope])


def _depthwise(draw: Drawing) -> str:
    return draw.node("Relu", [draw.conv(draw.stem(), (WIDTH, 1, 3, 3), group=WIDTH)])


def _grouped(draw: Drawing) -> str:
    return draw.node("Relu", [draw.conv(draw.stem(), (WIDTH, 4, 3, 3), group=4)])


def _dilated(draw: Drawing) -> str:
    return draw.conv(draw.stem(), (WIDTH, WIDTH, 3, 3), dilations=[2, 2], pads=[2] * 4)


def _residual(draw: Drawing) -> str:
    stem = draw.stem()
    branch = draw.node("Relu", [draw.conv(stem, (WIDTH, WIDTH, 3, 3))])
    return draw.node("Relu", [draw.node("Add", [draw.conv(branch, (WIDTH, WIDTH, 3, 3)), stem])])


def _transposed(draw: Drawing) -> str:
    weight = draw.random(WIDTH, WIDTH, 2, 2)
    return draw.node("ConvTranspose", [draw.stem(), weight, draw.random(WIDTH)], strides=[2, 2])


def _grouped_transposed(draw: Drawing) -> str:
    return draw.node("ConvTranspose", [draw.stem(), draw.random(WIDTH, 4, 2, 2)], strides=[2, 2], group=4)


def _tokens(draw: Drawing) -> str:
    width, height = SIZE_WH
    shape = draw.weight(np.array([1, WIDTH, width * height], np.int64))
    return draw.node("Transpose", [draw.node("Reshape", [draw.stem(), shape])], perm=[0, 2, 1])


def _planes_of_tokens(draw: Drawing, tokens: str) -> str:
    width, height = SIZE_WH
    shape = draw.weight(np.array([1, WIDTH, height, width], np.int64))
    return draw.node("Reshape", [draw.node("Transpose", [tokens], perm=[0, 2, 1]), shape])


def _matmul(draw: Drawing) -> str:
    return _planes_of_tokens(draw, draw.node("MatMul", [_tokens(draw), draw.random(WIDTH, WIDTH)]))


def _matmul_left(draw: Drawing) -> str:
    width, height = SIZE_WH
    shapes = [
        draw.weight(np.array(shape, np.int64)) for shape in ([1, WIDTH, width * height], [1, WIDTH, height, width])
    ]
    planes = draw.node("Reshape", [draw.stem(), shapes[0]])
    return draw.node("Reshape", [draw.node("MatMul", [draw.random(WIDTH, WIDTH), planes]), shapes[1]])


def _product(draw: Drawing) -> str:
    """Of two activations: what attention does."""
    tokens = _tokens(draw)
    turned = draw.node("Transpose", [draw.node("MatMul", [tokens, draw.random(WIDTH, WIDTH)])], perm=[0, 2, 1])
    square = draw.node("Mul", [draw.node("MatMul", [turned, tokens]), draw.weight(np.array(0.001, np.float32))])
    return _planes_of_tokens(draw, draw.node("MatMul", [tokens, square]))


def _gemm(draw: Drawing) -> str:
    """Squeeze and excite."""
    stem = draw.stem()
    squeezed = draw.node("Flatten", [draw.node("GlobalAveragePool", [stem])])
    excited = draw.node("Gemm", [squeezed, draw.random(WIDTH, WIDTH), draw.random(WIDTH)], transB=1)
    excited = draw.node("Gemm", [draw.node("Relu", [excited]), draw.random(WIDTH, WIDTH), draw.random(WIDTH)])
    shape = draw.weight(np.array([1, WIDTH, 1, 1], np.int64))
    return draw.node("Mul", [stem, draw.node("Reshape", [excited, shape])])


def _shared_input(draw: Drawing) -> str:
    stem = draw.stem()
    return draw.node("Add", [draw.conv(stem, (WIDTH, WIDTH, 3, 3)), draw.conv(stem, (WIDTH, WIDTH, 1, 1))])


KINDS: dict[str, Callable[[Drawing], str]] = {
    "relu": _relu,
    "signed": _signed,
    "clip": _clip,
    "prelu": _prelu,
    "depthwise": _depthwise,
    "grouped": _grouped,
    "dilated": _dilated,
    "residual": _residual,
    "transposed": _transposed,
    "grouped transposed": _grouped_transposed,
    "matmul": _matmul,
    "matmul left": _matmul_left,
    "product": _product,
    "gemm": _gemm,
    "shared input": _shared_input,
}


@cache
def quantizable(kind: str) -> bytes:
    """The graph of one of KINDS, from `image` to `class_map`, with the tensor SCORES within."""
    draw = Drawing()
    return draw.finished(KINDS[kind](draw))


def images(count: int = 4, size_wh: tuple[int, int] = SIZE_WH) -> list[Image]:
    """Random ones that differ in brightness, (h, w, 3) uint8."""
    rng = np.random.default_rng(3)
    tops = rng.integers(120, 257, count)
    return [rng.integers(0, top, (size_wh[1], size_wh[0], 3), dtype=np.uint8) for top in tops]


def core_groups(graph: Graph) -> list[FusionGroup]:
    """All groups but the first convolution and the classifier, as an export would take them."""
    return [group for group in find_groups(graph) if not group.is_narrow]


@cache
def ranges_of_kind(kind: str) -> Ranges:
    """Of all activations of a kind's groups, on `images()`."""
    graph = Graph(quantizable(kind))
    return measured_ranges(graph, find_groups(graph), images())


def measured_ranges(graph: Graph, groups: Collection[FusionGroup], frames: Sequence[Image]) -> Ranges:
    tensors = watched_tensors(groups)
    found = extremes_of(GraphRunner("test", "onnxruntime"), graph, tensors, frames)
    nonnegative = frozenset(name for name, extremes in found.items() if not extremes.signed)
    return Ranges({name: extremes.amax for name, extremes in found.items()}, nonnegative)


def run(content: bytes, output: str, frames: Sequence[Image], engine: EngineName = "onnxruntime") -> NDArray[Any]:
    """What a graph gives for each frame, stacked."""
    runner = GraphRunner("test", engine)
    return np.stack([values[output] for values in runner.values(content, [output], frames)])


def exactly(content: bytes, output: str, frames: Sequence[Image]) -> NDArray[Any]:
    """The same in ONNX Runtime as the graph is written: float between the pairs, no 8-bit kernels that may saturate."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return np.stack([session.run([output], {INPUT: image[None]})[0] for image in frames])


def noise_share(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    """Power of the difference, as a share of the signal's."""
    return float(((found - wanted) ** 2).sum() / (wanted**2).sum())
