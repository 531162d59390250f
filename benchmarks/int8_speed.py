"""Claims: the variant that an export ships is never slower than the fastest float form on any engine here; and 2.5
times as fast as the same engine's plain float for the two networks of dense convolutions, StreetNet and the demo model.

All forms of a model run in turns. Beside them, what the machine allows: the speed of large INT8 convolutions over the
same in float. `python -m benchmarks.int8_speed --bundles FOLDER [NAME...]`, with bundles of `benchmarks.int8_accuracy`.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.interleave import Claim, conclude
from benchmarks.zoo import report_of, zoo
from vidseg.export.graph import Graph
from vidseg.export.groups import find_groups
from vidseg.export.lowering import OPENVINO
from vidseg.export.qdq import Ranges, quantize
from vidseg.export.timing import latencies_ms
from vidseg.runtime.bundle import Bundle
from vidseg.runtime.engines.candidates import candidates_of
from vidseg.runtime.engines.graph import GraphOptions
from vidseg.runtime.engines.openvino import OpenVinoEngine

DENSE = ("streetnet_camvid_360x480", "demo")
MIN_DENSE_RATIO = 2.5
ROUNDS = 20


def times_of(bundle: Bundle) -> dict[str, float]:
    """Median milliseconds of every engine and variant."""
    image = next(iter(bundle.samples()))[0]
    openers = {str(candidate): partial(candidate.open, bundle) for candidate in candidates_of(bundle)}
    return latencies_ms(openers, image, ROUNDS)


def peak_ratio() -> float:
    """Speed of a 3x3 convolution of 128 channels in INT8 over float, in OpenVINO, without anything around it."""
    graph = Graph(_convolutions(128, (90, 120), 6))
    groups = [group for group in find_groups(graph) if group.channels_in >= 16]
    amax = {tensor: 4.0 for group in groups for tensor in group.inputs}
    int8 = quantize(graph, groups, Ranges(amax, nonnegative=frozenset(amax)), OPENVINO)
    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    openers = {
        name: partial(OpenVinoEngine, content, GraphOptions(name))
        for name, content in (("float", graph.serialized()), ("int8", int8))
    }
    times = latencies_ms(openers, image, ROUNDS)
    return times["float"] / times["int8"]


def _convolutions(channels: int, size_hw: tuple[int, int], count: int) -> bytes:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    height, width = size_hw
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["x0"], perm=[0, 3, 1, 2]),
    ]
    weights = []
    for number in range(count):
        inputs = 3 if number == 0 else channels
        values = rng.normal(0, 0.05, (channels, inputs, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"w{number}"))
        nodes.append(helper.make_node("Conv", [f"x{number}", f"w{number}"], [f"c{number}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"x{number + 1}"]))
    nodes.append(helper.make_node("ArgMax", [f"x{count}"], ["best"], axis=1, keepdims=0))
    nodes.append(helper.make_node("Cast", ["best"], ["class_map"], to=TensorProto.UINT8))
    graph = helper.make_graph(
        nodes,
        "convolutions",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, height, width, 3])],
        [helper.make_tensor_value_info("class_map", TensorProto.UINT8, [1, height, width])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = onnx.shape_inference.infer_shapes(model).SerializeToString()
    return content


def claims_of(name: str, bundle: Bundle) -> list[Claim]:
    """Print the times of a model, and say what holds."""
    times = times_of(bundle)
    for candidate, ms in times.items():
        print(f"{name:40} {candidate:38} {ms:8.2f} ms")
    floats = {candidate: ms for candidate, ms in times.items() if " float" in candidate}
    chosen = report_of(bundle)["chosen"]
    if chosen is None:
        return [Claim(f"{name}: float ships where INT8 gains nothing", report_of(bundle)["verdict"], holds=True)]
    shipped = min(ms for candidate, ms in times.items() if candidate.startswith(chosen) and " int8" in candidate)
    gain = min(floats.values()) / shipped
    found = [Claim(f"{name}: INT8 is not slower than any float", f"{gain:.2f} x the fastest float", gain >= 1)]
    if name in DENSE:
        ratio = times[f"{chosen} float"] / shipped
        text = f"{name}: >= {MIN_DENSE_RATIO} x plain float in {chosen}"
        found.append(Claim(text, f"{ratio:.2f} x", ratio >= MIN_DENSE_RATIO))
    return found


def main() -> None:
    """Print times and claims."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--bundles", type=Path)
    parser.add_argument("--trained", type=Path)
    options = parser.parse_args()
    print(f"a large convolution in INT8 runs {peak_ratio():.2f} x as fast as in float here")
    claims = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.bundles or Path(scratch)
        for model in zoo(options.names or (list(DENSE) if options.bundles is None else []), options.trained):
            claims += claims_of(model.name, model.export(folder / f"{model.name}.vidseg", folder))
    conclude(*claims)


if __name__ == "__main__":
    main()
