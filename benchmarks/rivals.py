"""Other quantizers, on the same fused graph and the same calibration frames."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.zoo import ZooModel, report_of
from vidseg.export.frames import spread_frames
from vidseg.runtime.bundle import Bundle
from vidseg.runtime.decoding import CLASS_MAP, Outputs, Prediction, decode_class_map
from vidseg.runtime.engines.graph import INPUT, GraphOptions
from vidseg.runtime.engines.onnxruntime import BATCH_AXIS, OnnxRuntimeEngine
from vidseg.runtime.frame import Image
from vidseg.runtime.geometry import placement_of


def calibration_images(bundle: Bundle, model: ZooModel) -> list[Image]:
    """As many frames as vidseg took of the same source, evenly spread, on the model's input."""
    count = len(report_of(bundle)["frames"]["calibration"])
    spec = bundle.manifest.input
    frames = spread_frames(model.calib_uri, count).images
    return [
        placement_of((image.shape[1], image.shape[0]), spec.size_wh, spec.fit).input_from_frame(image)
        for image in frames
    ]


def static_model(bundle: Bundle, model: ZooModel) -> OnnxRuntimeEngine:
    """ONNX Runtime's `quantize_static`: MinMax, Q/DQ, weights per channel."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.tools.onnx_model_utils import make_dim_param_fixed

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._images: Iterator[Image] = iter(calibration_images(bundle, model))

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            image = next(self._images, None)
            return None if image is None else {INPUT: image[None]}

    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        model_proto = onnx.load_from_string(bundle.members["model.onnx"])
        make_dim_param_fixed(model_proto.graph, BATCH_AXIS, 1)
        onnx.save(model_proto, source)
        quantize_static(source, out, Reader(), quant_format=QuantFormat.QDQ, per_channel=True)
        return OnnxRuntimeEngine(out.read_bytes(), GraphOptions("quantize_static", "int8"))


def nncf_model(bundle: Bundle, model: ZooModel, preset: str) -> OpenVinoModel:
    """NNCF's `quantize` with a preset, `performance` (its default) or `mixed`."""
    import nncf
    import openvino

    graph = openvino.Core().read_model(bundle.members["model.onnx"], b"")
    width, height = bundle.manifest.input.size_wh
    graph.reshape({INPUT: [1, height, width, 3]})
    for result in graph.get_results():
        if result.output(0).any_name != CLASS_MAP:
            graph.remove_result(result)
    dataset = nncf.Dataset([image[None] for image in calibration_images(bundle, model)])
    quantized = nncf.quantize(graph, dataset, preset=nncf.QuantizationPreset(preset))
    return OpenVinoModel(quantized, (1, height, width, 3))


class OpenVinoModel:
    """An OpenVINO model as an engine."""

    max_batch = 1
    device = "CPU"
    precision = "int8"

    def __init__(self, graph: Any, input_shape_nhwc: tuple[int, int, int, int]) -> None:
        import openvino

        self.input_shape_nhwc = input_shape_nhwc
        self._compiled = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def enqueue(self, batch: NDArray[np.uint8]) -> _Done:
        """Infer."""
        return _Done({CLASS_MAP: np.asarray(self._compiled([batch])[CLASS_MAP])})

    def decode(self, outputs: Outputs) -> Prediction:
        """The class map."""
        return decode_class_map(outputs)

    def close(self) -> None:
        """Nothing to let go of."""

    def __enter__(self) -> OpenVinoModel:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


class _Done:
    def __init__(self, outputs: Outputs) -> None:
        self._outputs = outputs

    def result(self) -> Outputs:
        """The outputs by name."""
        return self._outputs
