"""Claim: drawing a 480x360 class map on a 720p frame, with the resize to the model and everything else but network and
upsampling, takes at most 3 ms of one core, and is at least 50 times faster than the plain NumPy form."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np

from benchmarks.interleave import Claim, conclude, median_ms, one_core
from vidseg.runtime.frame import ClassMap, Frame, Image, Segmentation
from vidseg.runtime.geometry import placement_of
from vidseg.runtime.overlay import Overlay, OverlayStyle
from vidseg.runtime.sources.street.classes import STREET_CLASSES
from vidseg.runtime.sources.street.render import Street

MAX_MS = 3.0
MIN_RATIO = 50.0


def ours(image: Image, class_map: ClassMap, overlay: Overlay) -> Image:
    """What the pipeline does with each frame around the network."""
    placement = placement_of((image.shape[1], image.shape[0]), (class_map.shape[1], class_map.shape[0]), "stretch")
    placement.input_from_frame(image)
    frame = Frame("bench", 0, 0, 0, 0, "pts", image)
    affine = placement.grid_from_frame((class_map.shape[1], class_map.shape[0]))
    return overlay.draw(Segmentation(frame, placement.without_padding(class_map), affine, 0.0), ["29.9 fps  age 31 ms"])


def plain(image: Image, class_map: ClassMap, palette: Image) -> Image:
    """The same in NumPy as one writes it down: bilinear to the model, nearest back, a mask a class, blend."""
    height, width = class_map.shape
    rows = (np.arange(height) + 0.5) * image.shape[0] / height - 0.5
    columns = (np.arange(width) + 0.5) * image.shape[1] / width - 0.5
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    below, right = np.minimum(top + 1, image.shape[0] - 1), np.minimum(left + 1, image.shape[1] - 1)
    y, x = (rows - top)[:, None, None], (columns - left)[None, :, None]
    upper = image[top][:, left] * (1 - x) + image[top][:, right] * x
    lower = image[below][:, left] * (1 - x) + image[below][:, right] * x
    np.rint(upper * (1 - y) + lower * y).astype(np.uint8)
    nearest_rows = np.arange(image.shape[0]) * height // image.shape[0]
    nearest_columns = np.arange(image.shape[1]) * width // image.shape[1]
    large = class_map[nearest_rows][:, nearest_columns]
    colors = np.zeros_like(image)
    for class_id, color in enumerate(palette):
        colors[large == class_id] = color
    picture: Image = (image * 0.5 + colors * 0.5).astype(np.uint8)
    return picture


def supervision_annotator(image: Image, class_map: ClassMap, classes: int) -> Callable[[], object] | None:
    """supervision's mask annotator on the same picture, where the package is installed."""
    if importlib.util.find_spec("supervision") is None:
        return None
    import cv2
    import supervision

    size_wh = (image.shape[1], image.shape[0])
    annotator = supervision.MaskAnnotator(opacity=0.5)

    def annotate() -> object:
        large = cv2.resize(class_map, size_wh, interpolation=cv2.INTER_NEAREST)
        ids = [class_id for class_id in range(classes) if (large == class_id).any()]
        masks = np.stack([large == class_id for class_id in ids])
        boxes = supervision.mask_to_xyxy(masks)
        detections = supervision.Detections(xyxy=boxes, mask=masks, class_id=np.array(ids))
        return annotator.annotate(scene=image.copy(), detections=detections)

    return annotate


def main() -> None:
    """Measure and conclude."""
    one_core()
    image, _ = Street(7, (1280, 720)).render(30, 1.0)
    _, class_map = Street(7, (480, 360)).render(30, 1.0)
    overlay = Overlay(STREET_CLASSES, OverlayStyle())
    palette = np.array([spec.color_rgb[::-1] for spec in STREET_CLASSES], np.uint8)
    alternatives: dict[str, Callable[[], object]] = {
        "vidseg": lambda: ours(image, class_map, overlay),
        "plain NumPy": lambda: plain(image, class_map, palette),
    }
    annotate = supervision_annotator(image, class_map, len(STREET_CLASSES))
    if annotate:
        alternatives["supervision"] = annotate
    times = median_ms(alternatives)
    for name, time_ms in times.items():
        print(f"{name:<12} {time_ms:8.2f} ms   {time_ms / times['vidseg']:6.1f} x vidseg")
    ratio = times["plain NumPy"] / times["vidseg"]
    conclude(
        Claim(f"a frame around the network <= {MAX_MS:g} ms", f"{times['vidseg']:.2f} ms", times["vidseg"] <= MAX_MS),
        Claim(f"against plain NumPy >= {MIN_RATIO:g} x", f"{ratio:.1f} x", ratio >= MIN_RATIO),
    )


if __name__ == "__main__":
    main()
