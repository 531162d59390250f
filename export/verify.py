"""Comparing what was exported with the original model, pixel by pixel.

The reference shares nothing with the fused graph: the original file in ONNX Runtime, preprocessing in NumPy, the last
resize in OpenCV.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vidseg.export.head import Head
from vidseg.export.model import LoadedModel
from vidseg.runtime.decoding import outputs_of
from vidseg.runtime.engines import Engine, predict
from vidseg.runtime.engines.graph import GraphOptions
from vidseg.runtime.engines.onnxruntime import OnnxRuntimeEngine, import_onnxruntime
from vidseg.runtime.engines.openvino import OpenVinoEngine
from vidseg.runtime.errors import ModelError
from vidseg.runtime.frame import ClassMap, Image
from vidseg.runtime.manifest import AccuracySpec, InputSpec, UpsamplingSpec

MIN_AGREEMENT = 0.999
"""Share of the pixels that have to get the original's class, over all frames. Rounding differs in ties only."""


class OriginalModel:
    """The model as it came, with the preprocessing that its author describes.

    Raises:
        ModelError: ONNX Runtime refuses the model.
    """

    def __init__(self, model: LoadedModel, head: Head, spec: InputSpec) -> None:
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        content = model.original.SerializeToString()
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library's exceptions have no common base
            raise ModelError(f"{model.name}: ONNX Runtime cannot load it", str(error)[:200]) from error
        self._model, self._head, self._spec = model, head, spec
        original = {new: old for old, new in model.renamed.items()}
        self._output_name = original.get(head.output, head.output)

    def class_map(self, image: Image) -> ClassMap:
        """Classes of an image at the input's size, (h, w, 3) uint8 BGR to (h, w) uint8."""
        feed = {self._model.input_name: self._preprocessed(image)}
        try:
            (output,) = self._session.run([self._output_name], feed)
        except Exception as error:  # see above
            raise ModelError(f"{self._model.name}: ONNX Runtime cannot run it", str(error)[:200]) from error
        if not np.isfinite(output).all():
            raise ModelError(f"{self._model.name}: the model gives values that are no numbers", "NaN or infinity")
        scores = output[0].transpose(1, 2, 0) if self._head.layout == "NCHW" else output[0]
        scores = _resized(scores, self._model.size_wh)
        if self._head.kind == "sigmoid":
            return (scores[..., 0] > 0.5).astype(np.uint8)
        winner: ClassMap = scores.argmax(axis=-1).astype(np.uint8)
        return winner

    def _preprocessed(self, image: Image) -> NDArray[np.float32]:
        spec = self._spec
        channels = image[..., ::-1] if spec.color == "RGB" else image
        values = (channels.astype(np.float64) * spec.scale - np.asarray(spec.mean)) / np.asarray(spec.std)
        planes = values.transpose(2, 0, 1) if self._model.layout == "NCHW" else values
        return np.ascontiguousarray(planes[None], np.float32)


def _resized(scores: NDArray[Any], size_wh: tuple[int, int]) -> NDArray[Any]:
    if scores.shape[1::-1] == size_wh:
        return scores
    planes = [
        cv2.resize(np.ascontiguousarray(scores[..., channel]), size_wh, interpolation=cv2.INTER_LINEAR)
        for channel in range(scores.shape[-1])
    ]
    return np.stack(planes, axis=-1)


def engines_for_check(content: bytes, model: LoadedModel, upsampling: UpsamplingSpec | None) -> dict[str, Engine]:
    """A variant of the exported graph in every engine that is installed here."""
    fetch, decode = outputs_of(upsampling, model.size_wh)
    options = GraphOptions(model.name, fetch=fetch, decode=decode)
    engines: dict[str, Engine] = {"onnxruntime": OnnxRuntimeEngine(content, options)}
    if importlib.util.find_spec("openvino"):
        engines["openvino"] = OpenVinoEngine(content, options)
    return engines


def agreement_of(engine: Engine, images: Sequence[Image], wanted: Sequence[ClassMap]) -> float:
    """Share of the pixels of images at the input's size that get the class that they should, 0..1.

    Raises:
        EngineError: inference failed.
    """
    pairs = zip(images, wanted, strict=True)
    return float(np.mean([(predict(engine, image).class_map == class_map).mean() for image, class_map in pairs]))


def check_agreement(
    wanted: Sequence[ClassMap], engines: dict[str, Engine], images: Sequence[Image], name: str
) -> dict[str, AccuracySpec]:
    """Compare engines with the original's class maps of images at the input's size.

    Raises:
        ModelError: an engine gives another class to more than 0.1 % of the pixels.
    """
    shares: dict[str, list[float]] = {engine: [] for engine in engines}
    for image, class_map in zip(images, wanted, strict=True):
        for engine_name, engine in engines.items():
            found = predict(engine, image).class_map
            shares[engine_name].append(float((found == class_map).mean()))
    for engine_name, agreement in shares.items():
        if np.mean(agreement) < MIN_AGREEMENT:
            worst = int(np.argmin(agreement))
            raise ModelError(
                f"{name}: the exported graph differs from the original in {engine_name}",
                f"{np.mean(agreement):.3%} equal pixels, worst frame {worst} with {agreement[worst]:.3%}",
                "Nothing was written. Please report the model.",
            )
    return {
        engine_name: AccuracySpec(frames=len(images), agreement=round(float(np.mean(agreement)), 6))
        for engine_name, agreement in shares.items()
    }
