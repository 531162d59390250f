"""Claim: exact sparse upsampling with argmax, 720p and 19 classes, is at least 15 times faster than the plain form at
stride 8 and 8 times at stride 4, one core, and equal to it in every pixel.

The logits are those of a real model on a real drive where the test material is at hand (--data), else those of the demo
model on the rendered street, stretched to 19 classes by shifted copies that never win.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from benchmarks.interleave import Claim, conclude, median_ms, one_core
from vidseg.runtime.bundle import open_bundle
from vidseg.runtime.engines.opening import open_engine
from vidseg.runtime.frame import ClassMap
from vidseg.runtime.pipeline.opening import demo_bundle_path
from vidseg.runtime.sources.street.render import Street
from vidseg.runtime.upsampling import Scores, SparseUpsampler, dense_class_map

SIZE_WH = (1280, 720)
CLASSES = 19
MIN_RATIOS = {8: 15.0, 4: 8.0}
FRAMES = 4


def plain(scores: Scores) -> ClassMap:
    """As one writes it: every class upsampled by OpenCV, then argmax."""
    planes = [cv2.resize(plane, SIZE_WH, interpolation=cv2.INTER_LINEAR) for plane in scores]
    class_map: ClassMap = np.stack(planes).argmax(axis=0).astype(np.uint8)
    return class_map


def real_logits(data: Path) -> list[Scores]:
    """ESPNetv2 (Cityscapes) at 1024x512 on frames of a drive, (19, h, w) each."""
    import onnxruntime

    model = data / "models/espnetv2_s2_city_512x1024.onnx"
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    capture = cv2.VideoCapture(str(data / "videos/street_camvid_0016E5_15hz_480x360.mp4"))
    found = []
    for number in range(20 * FRAMES):
        _, frame = capture.read()
        if number % 20 == 19:
            image = cv2.resize(frame, (1024, 512))[..., ::-1] / 255
            image = (image - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
            feed = {session.get_inputs()[0].name: image.transpose(2, 0, 1)[None].astype(np.float32)}
            found.append(session.run(None, feed)[0][0, :CLASSES])
    return found


def demo_logits() -> list[Scores]:
    """The demo model's scores of the rendered street."""
    bundle = open_bundle(demo_bundle_path())
    street = Street(11, bundle.manifest.input.size_wh)
    found = []
    with open_engine(bundle, variant="float-cut") as engine:
        for second in range(FRAMES):
            image, _ = street.render(second * 30, float(second * 3))
            scores = engine.enqueue(image[None]).result()["scores"][0]
            copies = [np.roll(scores, shift, axis=2) - 1 for shift in (1, 2)]
            found.append(np.concatenate([scores, *copies])[:CLASSES])
    return found


def main() -> None:
    """Measure and conclude."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared/data")
    data = parser.parse_args().data
    is_real = (data / "models").is_dir()
    logits = real_logits(data) if is_real else demo_logits()
    print("logits:", "a real model on a real drive" if is_real else "the demo model on the rendered street")
    one_core()
    claims = []
    for stride, min_ratio in MIN_RATIOS.items():
        grid_wh = (SIZE_WH[0] // stride, SIZE_WH[1] // stride)
        upsampler = SparseUpsampler(grid_wh, SIZE_WH)
        ratios, different, all_different = [], 0, 0
        for scores in logits:
            coarse = np.stack([cv2.resize(plane, grid_wh, interpolation=cv2.INTER_AREA) for plane in scores])
            times = median_ms({"sparse": partial(upsampler.class_map, coarse), "plain": partial(plain, coarse)}, 11)
            ratios.append(times["plain"] / times["sparse"])
            found = upsampler.class_map(coarse)
            different += int((found != dense_class_map(coarse, SIZE_WH)).sum())
            all_different += int((found != plain(coarse)).sum())
            print(f"stride {stride}: sparse {times['sparse']:6.2f} ms, plain {times['plain']:7.2f} ms")
        ratio = float(np.median(ratios))
        claims.append(Claim(f"stride {stride}: >= {min_ratio:g} x faster", f"{ratio:.1f} x", ratio >= min_ratio))
        text = f"{different} pixels differ from the plain form, {all_different} from OpenCV's rounding"
        claims.append(Claim(f"stride {stride}: equal in every pixel", text, different == 0))
    conclude(*claims)


if __name__ == "__main__":
    main()
