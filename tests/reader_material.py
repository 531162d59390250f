"""A reader of the documentation: a trained model, class names, a clip, labelled pictures, and commands to try."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import cv2

from tests.export.models import write_wide_model
from vidseg.runtime.frame import UNKNOWN
from vidseg.runtime.sources.street.code import code_height
from vidseg.runtime.sources.street.render import Street

SIZE_WH = (480, 360)
CLIP_FRAMES = 30

CAMERA, STAND_IN = "/dev/video0", "scene://street?frames=30"
"""There is no camera where tests run."""


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in a language."""
    return re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)


def commands(page: str) -> list[str]:
    """The commands of a page, in order: lines of shell blocks, and what stands in the text with arguments."""
    inline = r"`((?:vidseg|python) [^`\s]+ [^`\n]+)`"
    found = re.findall(rf"```sh\n(.*?)```|{inline}", page.replace("\\\n", " "), flags=re.DOTALL)
    lines = "\n".join(block or command for block, command in found).replace(CAMERA, STAND_IN).splitlines()
    return [re.split(r"(?:^|\s)#", line)[0].strip() for line in lines if line.strip()]


def run(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder as in an activated environment, without a display."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment = {name: value for name, value in environment.items() if name not in {"DISPLAY", "WAYLAND_DISPLAY"}}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=110, check=False
    )


def write(folder: Path, size_wh: tuple[int, int] = SIZE_WH) -> None:
    """Put `model.onnx`, `classes.txt`, `clip.mp4`, `images/` and `labels/` into a folder."""
    write_wide_model(folder / "model.onnx", size_wh, classes=7, stride=16)
    (folder / "classes.txt").write_text("sky\nroad\npavement\nbuilding\ntree\ncar\nperson\n")
    write_clip(folder / "clip.mp4", size_wh=size_wh)
    street = Street(11, size_wh)
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    for number in range(3):
        image, labels = street.render(number * 60, number * 2.0)
        labels[-code_height(size_wh[1]) :] = UNKNOWN
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
