"""What the tests on a GPU need, made on a machine that exports: `python -m tests.gpu.material [MODEL...]`

For each model a bundle with INT8, and 20 frames with what ONNX Runtime says of them in float, all in `.gpu-material`: a
GPU machine often has no exporter, no network and no room for the data that the bundles were made of.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.bundle import Bundle, open_bundle
from vidseg.runtime.engines import predict
from vidseg.runtime.engines.opening import GpuUse, open_engine
from vidseg.runtime.engines.tensorrt.engine import TensorRtEngine
from vidseg.runtime.engines.tensorrt.onnx_bytes import has_free_batch
from vidseg.runtime.engines.tensorrt.opening import open_tensorrt
from vidseg.runtime.engines.tensorrt.settings import BuildSettings
from vidseg.runtime.frame import ClassMap, Image

FOLDER = Path(__file__).parents[2] / ".gpu-material"
FRAMES = 20
TACTIC_SOURCES = ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")
"""Of every release, and without cuBLAS and cuDNN, which a machine for tests may lack."""

Variant: TypeAlias = Literal["fp16", "int8"]

MODELS = ("streetnet", "cgnet", "enet", "demo")


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """A frame at the input's size, and what the float model says of it on a CPU.

    Attributes:
        image: (h, w, 3) uint8 BGR.
        class_map: (h, w) uint8.
        sure: (h, w) bool: the two largest probabilities are at least 0.5 apart.
    """

    image: Image
    class_map: ClassMap
    sure: NDArray[np.bool_]


def bundles() -> list[Path]:
    """The bundles that are here."""
    return sorted(FOLDER.glob("*.vidseg"))


def expected(bundle: Path) -> Iterator[Expected]:
    """The frames of a bundle."""
    for path in sorted(bundle.with_suffix("").glob("*-image.png")):
        class_map, sure = (
            cv2.imread(str(path.with_name(path.name.replace("image", kind))), cv2.IMREAD_UNCHANGED)
            for kind in ("classes", "sure")
        )
        assert class_map is not None
        assert sure is not None
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        assert image is not None
        yield Expected(image.astype(np.uint8), class_map.astype(np.uint8), sure > 0)


def opened(bundle: Bundle, variant: Variant, plans: Path, **gpu: Any) -> TensorRtEngine:
    """The engine, for a machine that may lack cuBLAS and cuDNN; one picture at a time where the graph takes no more."""
    use = GpuUse(plans, **gpu)
    settings = settings_of(variant, use.max_batch if has_free_batch(bundle.members["model.onnx"]) else 1)
    return open_tensorrt(bundle, variant, use, settings=settings)


def settings_of(variant: Variant, max_batch: int = 1) -> BuildSettings:
    """With kernels of TensorRT itself only."""
    return BuildSettings(precision=variant, max_batch=max_batch, tactic_sources=TACTIC_SOURCES)


def make(model_name: str) -> None:
    """A bundle and its frames."""
    from benchmarks.zoo import zoo

    FOLDER.mkdir(exist_ok=True)
    (model,) = zoo([model_name], FOLDER)
    bundle = model.export(FOLDER / f"{model_name}.vidseg", FOLDER)
    folder = FOLDER / model_name
    folder.mkdir(exist_ok=True)
    for number, (image, class_map, sure) in enumerate(_answers(bundle, model.calib_uri)):
        for kind, picture in (("image", image), ("classes", class_map), ("sure", sure.astype(np.uint8))):
            cv2.imwrite(str(folder / f"{number:02}-{kind}.png"), picture)


def _answers(bundle: Bundle, frames_uri: str) -> Iterator[tuple[Image, ClassMap, NDArray[np.bool_]]]:
    from vidseg.calibration.margin import sure_pixels
    from vidseg.export.frames import spread_frames
    from vidseg.runtime.geometry import placement_of

    spec = next((variant for variant in bundle.manifest.variants if variant.name == "float-cut"), None)
    assert spec is not None
    assert spec.upsampling is not None
    size_wh = bundle.manifest.input.size_wh
    with open_engine(bundle) as whole, open_engine(bundle, variant="float-cut") as cut:
        for frame in spread_frames(frames_uri, FRAMES).images:
            placement = placement_of((frame.shape[1], frame.shape[0]), size_wh, bundle.manifest.input.fit)
            image = placement.input_from_frame(frame)
            scores = cut.enqueue(image[None]).result()["scores"][0]
            sure = sure_pixels(
                scores,
                bundle.manifest.output.size_wh,
                spec.upsampling.alignment,
                probabilities=spec.upsampling.scores == "probabilities",
            )
            yield image, predict(whole, image).class_map, sure


def main() -> None:
    """Make what is missing."""
    for name in sys.argv[1:] or MODELS:
        make(name)
        print(f"{name}: {open_bundle(FOLDER / f'{name}.vidseg').path}")  # noqa: T201


if __name__ == "__main__":
    main()
