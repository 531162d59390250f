"""What a reader of the README brings: a trained model, class names, a clip, labelled pictures."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2

from tests.export.models import write_wide_model
from vidseg.runtime.frame import UNKNOWN
from vidseg.runtime.sources.street.code import code_height
from vidseg.runtime.sources.street.render import Street

SIZE_WH = (480, 360)
CLIP_FRAMES = 30


def write(folder: Path) -> None:
    """Put `model.onnx`, `classes.txt`, `clip.mp4`, `images/` and `labels/` into a folder."""
    write_wide_model(folder / "model.onnx", SIZE_WH, classes=7, stride=8)
    (folder / "classes.txt").write_text("sky\nroad\npavement\nbuilding\ntree\ncar\nperson\n")
    write_clip(folder / "clip.mp4")
    street = Street(11, SIZE_WH)
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    for number in range(3):
        image, labels = street.render(number * 60, number * 2.0)
        labels[-code_height(SIZE_WH[1]) :] = UNKNOWN
        cv2.imwrite(str(folder / f"images/{number}.png"), image)
        cv2.imwrite(str(folder / f"labels/{number}.png"), labels)


def write_clip(path: Path, frames: int = CLIP_FRAMES, size_wh: tuple[int, int] = SIZE_WH, seed: int = 11) -> Path:
    """A clip of a fast drive through the rendered street, H.264, 30 frames a second."""
    import av

    street = Street(seed, size_wh)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(30))
        stream.width, stream.height = size_wh
        stream.pix_fmt = "yuv420p"
        for index in range(frames):
            picture = av.VideoFrame.from_ndarray(street.render(index, index / 4)[0], format="bgr24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path
