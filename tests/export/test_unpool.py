"""If unpooling without indices differed in one pixel, ENet would segment worse in one engine than in another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from vidseg.export.model import load_model
from vidseg.export.rtx import RtxOptions, build_rtx
from vidseg.export.rtx_build import COMPILER
from vidseg.export.unpool import without_indices

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


@dataclass(frozen=True)
class Unpooling:
    """A pooling with indices, a sum that tells its windows apart, and an unpooling as PyTorch 2.13 writes it.

    `moved` is added to each index; `twice` unpools a second time by the same indices; `single` takes the channels'
    first indices from a pooling of single pixels, as older exports do, else they are weights.
    """

    size_hw: tuple[int, int] = (7, 10)
    channels: int = 3
    kernel: int = 3
    stride: int = 2
    pad: int = 1
    ceil_mode: int = 0
    moved: int = 0
    twice: bool = False
    single: bool = True

    @property
    def model(self) -> Any:
        count = int(np.prod(self.size_hw)) * self.channels
        pool: dict[str, Any] = {"kernel_shape": [self.kernel] * 2, "strides": [self.stride] * 2, "pads": [self.pad] * 4}
        pool["ceil_mode"] = self.ceil_mode
        firsts = np.arange(self.channels).reshape(1, -1, 1, 1) * int(np.prod(self.size_hw))
        weights: dict[str, NDArray[Any]] = {
            "zeros": np.zeros(count, np.float32),
            "row": np.array([-1]),
            "last": np.array([-1]),
            "shape": np.array([1, self.channels, *self.size_hw]),
            "starts": np.array([0, 0]),
            "ends": np.array([1, 1]),
            "axes": np.array([2, 3]),
            "added": firsts + self.moved,
            "columns": 0.5 * np.arange(1, self._windows() + 1, dtype=np.float32),
        }
        nodes = [
            helper.make_node("MaxPool", ["input"], ["pooled", "indices"], **pool),
            helper.make_node("MaxPool", ["input"], ["same", "all"], kernel_shape=[1, 1]),
            helper.make_node("Slice", ["all", "starts", "ends", "axes"], ["firsts"]),
            helper.make_node("Sub", ["indices", "firsts"], ["in_plane"]),
            helper.make_node("Add", ["in_plane", "added"], ["whole"]),
            helper.make_node("Reshape", ["whole", "row"], ["flat"]),
            helper.make_node("Unsqueeze", ["flat", "last"], ["tuples"]),
            helper.make_node("Add", ["pooled", "columns"], ["values"]),
            helper.make_node("Reshape", ["values", "row"], ["updates"]),
            helper.make_node("ScatterND", ["zeros", "tuples", "updates"], ["scattered"], name="scatter"),
            helper.make_node("Reshape", ["scattered", "shape"], ["unpooled"]),
            helper.make_node("Neg", ["unpooled"], ["output"]),
        ]
        if not self.single:
            weights["firsts"] = firsts
            del nodes[1:3]
        if self.twice:
            nodes[-1:] = [
                helper.make_node("Neg", ["updates"], ["opposite"]),
                helper.make_node("ScatterND", ["zeros", "tuples", "opposite"], ["again"]),
                helper.make_node("Reshape", ["again", "shape"], ["second"]),
                helper.make_node("Concat", ["unpooled", "second"], ["output"], axis=1),
            ]
        graph = helper.make_graph(
            nodes,
            "unpooling",
            [helper.make_tensor_value_info("input", FLOAT, [1, self.channels, *self.size_hw])],
            [helper.make_tensor_value_info("output", FLOAT, [None] * 4)],
            [numpy_helper.from_array(value, name) for name, value in weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return _inferred(model)

    def _windows(self) -> int:
        """In a row."""
        span = self.size_hw[1] + 2 * self.pad - self.kernel
        count = -(-span // self.stride) if self.ceil_mode else span // self.stride
        return count + (count * self.stride < self.size_hw[1] + self.pad)


def _inferred(model: Any) -> Any:
    return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)


def _operators(model: Any) -> set[str]:
    return {node.op_type for node in model.graph.node}


def _has_indices(model: Any) -> bool:
    return any(node.op_type == "MaxPool" and len(node.output) > 1 for node in model.graph.node)


def _run(model: Any, picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """In ONNX Runtime on one thread: with more, overlapping windows write in no certain order."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (output,) = session.run(["output"], {"input": picture})
    return np.asarray(output)


def _run_openvino(model: Any, picture: NDArray[np.float32]) -> NDArray[np.float32]:
    openvino = pytest.importorskip("openvino", reason='OpenVINO is not installed: pip install "vidseg[openvino]"')
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_NUM_THREADS": 1})
    return np.asarray(compiled({"input": picture})["output"])


def _picture(case: Unpooling, seed: int, levels: int) -> NDArray[np.float32]:
    """Whole numbers around 0: with few levels, windows have several equal maxima."""
    rng = np.random.default_rng(seed)
    return rng.integers(-levels, levels + 1, (1, case.channels, *case.size_hw)).astype(np.float32)


CASES = {
    "SegNet": Unpooling(size_hw=(8, 12), kernel=2, pad=0),
    "SegNet, odd": Unpooling(size_hw=(9, 13), kernel=2, pad=0),
    "SegNet, odd, rounded up": Unpooling(size_hw=(9, 13), kernel=2, pad=0, ceil_mode=1),
    "ENet": Unpooling(size_hw=(8, 12)),
    "ENet, odd": Unpooling(size_hw=(9, 13)),
    "unpadded": Unpooling(kernel=3, pad=0),
    "by three": Unpooling(size_hw=(10, 11), kernel=3, stride=3, pad=1),
    "wide": Unpooling(size_hw=(11, 12), kernel=5, stride=2, pad=2),
    "twice": Unpooling(twice=True),
    "plain": Unpooling(single=False),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("levels", [0, 1, 1000])
def test_nothing_changes_but_the_operators(case: Unpooling, levels: int) -> None:
    picture = _picture(case, 3, levels)
    rewritten = _inferred(without_indices(case.model))
    assert "ScatterND" not in _operators(rewritten)
    assert not _has_indices(rewritten)
    onnx.checker.check_model(rewritten, full_check=True)
    wanted = _run(case.model, picture)
    assert _run(rewritten, picture).tobytes() == wanted.tobytes()
    assert (_run_openvino(rewritten, picture) == wanted).all()


@settings(max_examples=40, deadline=None)
@given(
    size_hw=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    shape=st.sampled_from([(2, 2, 0), (2, 2, 1), (3, 2, 0), (3, 2, 1), (3, 3, 0), (4, 2, 1)]),
    rounded_up=st.booleans(),
    levels=st.integers(0, 5),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_pooling_unpools_to_the_same(
    size_hw: tuple[int, int], shape: tuple[int, int, int], rounded_up: bool, levels: int, seed: int
) -> None:
    kernel, stride, pad = shape
    case = Unpooling(size_hw, 2, kernel, stride, pad, int(rounded_up and not pad))
    rewritten = without_indices(case.model)
    assert "ScatterND" not in _operators(rewritten)
    picture = _picture(case, seed, levels)
    assert _run(rewritten, picture).tobytes() == _run(case.model, picture).tobytes()


def test_unpooling_puts_the_maxima_back() -> None:
    """Where windows do not overlap, pooling what was unpooled gives the pooled picture, and nothing else is there."""
    case = Unpooling((8, 12), 2, kernel=2, pad=0)
    picture = np.abs(_picture(case, 5, 1000)) + 1
    unpooled = -_run(without_indices(case.model), picture)
    windows = unpooled.reshape(1, 2, 4, 2, 6, 2)
    pooled = picture.reshape(1, 2, 4, 2, 6, 2).max(axis=(3, 5))
    assert (windows.max(axis=(3, 5)) == pooled + 0.5 * np.arange(1, 7)).all()
    assert ((windows != 0).sum(axis=(3, 5)) == 1).all()


def _node(model: Any, operator: str) -> Any:
    return next(node for node in model.graph.node if node.op_type == operator)


def _add_up(model: Any) -> None:
    _node(model, "ScatterND").attribute.append(helper.make_attribute("reduction", "add"))


def _on_ones(model: Any) -> None:
    zeros = next(tensor for tensor in model.graph.initializer if tensor.name == "zeros")
    zeros.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(zeros) + 1, "zeros"))


def _by_columns(model: Any) -> None:
    _node(model, "MaxPool").attribute.append(helper.make_attribute("storage_order", 1))


def _give_whole(model: Any) -> None:
    model.graph.output.append(helper.make_tensor_value_info("scattered", FLOAT, None))


def _singles_by_columns(model: Any) -> None:
    single = next(node for node in model.graph.node if node.output[0] == "same")
    single.attribute.append(helper.make_attribute("storage_order", 1))


def _values_as_indices(model: Any) -> None:
    """A pooling without indices gives values, whatever they are."""
    del _node(model, "MaxPool").output[1:]
    cast = helper.make_node("Cast", ["pooled"], ["indices"], to=INT64)
    model.graph.node.insert(1, cast)


OTHERS: dict[str, Callable[[Any], None]] = {
    "adding up": _add_up,
    "on ones": _on_ones,
    "indices by columns": _by_columns,
    "flat picture given": _give_whole,
    "single pixels by columns": _singles_by_columns,
    "values as indices": _values_as_indices,
}


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS.keys())
def test_what_is_not_understood_stays(change: Callable[[Any], None]) -> None:
    model = Unpooling().model
    change(model)
    content = _inferred(model).SerializeToString(deterministic=True)
    kept = without_indices(onnx.load_from_string(content))
    assert kept.SerializeToString(deterministic=True) == content


@pytest.mark.parametrize("case", [Unpooling(moved=1), Unpooling(stride=1), Unpooling(kernel=2, stride=3, pad=0)])
def test_poolings_that_are_not_understood_stay(case: Unpooling) -> None:
    model = case.model
    assert without_indices(model) is model


@pytest.mark.parametrize("read", ["in_plane", "indices"])
def test_indices_that_something_else_reads_stay(read: str) -> None:
    model = Unpooling().model
    model.graph.output.append(helper.make_tensor_value_info(read, INT64, None))
    rewritten = without_indices(_inferred(model))
    assert "ScatterND" not in _operators(rewritten)
    assert _has_indices(rewritten)
    picture = _picture(Unpooling(), 7, 3)
    assert _run(rewritten, picture).tobytes() == _run(model, picture).tobytes()


def test_a_loaded_model_has_no_indices(tmp_path: Path) -> None:
    case = replace(CASES["ENet"], single=False)
    model = case.model
    onnx.save(model, str(tmp_path / "enet.onnx"))
    loaded = load_model(tmp_path / "enet.onnx", None)
    assert "ScatterND" not in _operators(loaded.graph_model)
    assert not _has_indices(loaded.graph_model)
    picture = _picture(case, 9, 4)
    assert _run(loaded.graph_model, picture).tobytes() == _run(loaded.original, picture).tobytes()


def test_nvidias_compiler_takes_it() -> None:
    pytest.importorskip(COMPILER, reason='NVIDIA\'s compiler is not installed: pip install "vidseg[rtx]"')
    rewritten = without_indices(CASES["ENet"].model)
    build = build_rtx(rewritten.SerializeToString(), RtxOptions(name="enet", outputs=("output",)))
    assert all(plan.plan_bytes for plan in build.plans)
