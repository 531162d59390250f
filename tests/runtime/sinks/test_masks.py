"""Class maps are what other programs read: an index or a name that is wrong goes unnoticed for long."""

from __future__ import annotations

import logging
import resource
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.media import segmentation_of
from vidseg.runtime.errors import SinkError
from vidseg.runtime.frame import ClassMap, Frame, Segmentation
from vidseg.runtime.geometry import placement_of
from vidseg.runtime.manifest import ClassSpec
from vidseg.runtime.sinks.masks import MasksSink

CLASSES = (
    ClassSpec(name="sky", color_rgb=(128, 128, 128)),
    ClassSpec(name="road", color_rgb=(10, 200, 30)),
    ClassSpec(name="car", color_rgb=(0, 0, 142)),
)
IMAGE = np.zeros((6, 8, 3), np.uint8)


def _indices_and_palette(path: Path) -> tuple[ClassMap, NDArray[np.uint8]]:
    """What is stored: (H, W) of indices, and (256, 4) of red, green, blue, opacity. Read by FFmpeg, not by us."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    assert frame.format.name == "pal8"
    indices, palette = frame.planes[0], np.frombuffer(bytes(frame.planes[1]), np.uint8).reshape(256, 4)
    rows = np.frombuffer(bytes(indices), np.uint8).reshape(frame.height, indices.line_size)
    return rows[:, : frame.width], palette[:, [2, 1, 0, 3]]


def test_the_indices_are_the_class_ids_and_the_palette_holds_the_colors(tmp_path: Path) -> None:
    segmentation = segmentation_of(IMAGE)
    MasksSink(tmp_path / "masks", CLASSES).write(segmentation, None)
    indices, palette = _indices_and_palette(tmp_path / "masks" / "drive_000000.png")
    assert np.array_equal(indices, segmentation.class_map)
    assert palette[:3, :3].tolist() == [list(spec.color_rgb) for spec in CLASSES]
    assert palette[255].tolist() == [0, 0, 0, 0]
    assert (palette[:255, 3] == 255).all()


def test_opencv_reads_the_colors(tmp_path: Path) -> None:
    segmentation = segmentation_of(IMAGE)
    MasksSink(tmp_path, CLASSES).write(segmentation, None)
    image = cv2.imread(str(tmp_path / "drive_000000.png"), cv2.IMREAD_COLOR)
    assert image is not None
    known = segmentation.class_map != 255
    colors_bgr = np.array([spec.color_rgb[::-1] for spec in CLASSES])
    assert np.array_equal(image[known], colors_bgr[segmentation.class_map[known]])


@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 2**32))
def test_any_class_map_comes_back(tmp_path_factory: pytest.TempPathFactory, width: int, height: int, seed: int) -> None:
    folder = tmp_path_factory.mktemp("masks")
    class_map = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    frame = Frame("s", 0, 7, 0, 0, "pts", np.zeros((height, width, 3), np.uint8))
    MasksSink(folder, CLASSES).write(Segmentation(frame, class_map, np.eye(2, 3), 0.0), None)
    assert np.array_equal(_indices_and_palette(folder / "s_000007.png")[0], class_map)


def test_a_mask_has_its_frames_size(tmp_path: Path) -> None:
    frame = Frame("s", 0, 0, 0, 0, "pts", np.zeros((90, 160, 3), np.uint8))
    placement = placement_of((160, 90), (32, 32), "letterbox")
    class_map = placement.without_padding(np.arange(1024, dtype=np.uint8).reshape(32, 32))
    segmentation = Segmentation(frame, class_map, placement.grid_from_frame((32, 32)), 0.0)
    MasksSink(tmp_path, CLASSES).write(segmentation, None)
    assert np.array_equal(_indices_and_palette(tmp_path / "s_000000.png")[0], segmentation.at_frame_size())


def test_names_tell_source_connection_and_frame_and_never_clash(tmp_path: Path) -> None:
    sink = MasksSink(tmp_path, CLASSES)
    for source, epoch, index in [
        ("/data/a/drive 1.mp4", 0, 12),
        ("/data/b/drive 1.mp4", 0, 12),
        ("/data/a/drive 1.mp4", 2, 12),
        ("street?seed=3", 0, 1_234_567),
        ("../..", 0, 0),
        ("каска.mp4", 0, 0),
        ("x" * 500, 0, 0),
    ]:
        sink.write(segmentation_of(IMAGE, index, source=source, epoch=epoch), None)
    sink.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [
            "drive_1_000012.png",
            "drive_1-2_000012.png",
            "drive_1_e2_000012.png",
            "street_seed_3_1234567.png",
            "source_000000.png",
            "каска_000000.png",
            "x" * 100 + "_000000.png",
        ]
    )


def test_nothing_is_made_before_the_first_result(tmp_path: Path) -> None:
    MasksSink(tmp_path / "masks", CLASSES).close()
    assert list(tmp_path.iterdir()) == []


def test_masks_from_before_are_pointed_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            sink = MasksSink(tmp_path / "masks", CLASSES)
            for index in range(3):
                sink.write(segmentation_of(IMAGE, index), None)
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}/masks/ has 3 PNG files from before: those of the same name are replaced"
    ]
    assert len(list((tmp_path / "masks").iterdir())) == 3


def test_a_place_where_no_folder_can_be_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "missing" / "masks", tmp_path / "file", tmp_path / "file" / "masks"):
        with pytest.raises(SinkError, match="no folder") as caught:
            MasksSink(folder, CLASSES)
        assert "\n" not in str(caught.value)


FULL_DISK_WRITER = """
import resource, sys
import numpy as np
from tests.media import segmentation_of
from vidseg.runtime.errors import SinkError
from vidseg.runtime.sinks.masks import MasksSink
sink = MasksSink(sys.argv[1], ())
sink.write(segmentation_of(np.zeros((6, 8, 3), np.uint8), 0), None)
resource.setrlimit(resource.RLIMIT_FSIZE, (1100, 1100))
try:
    sink.write(segmentation_of(np.zeros((600, 800, 3), np.uint8), 1), None)
except SinkError as error:
    print(error)
"""


def test_on_a_full_disk_no_half_mask_is_left(tmp_path: Path) -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    child = subprocess.run(
        [sys.executable, "-c", FULL_DISK_WRITER, str(tmp_path)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert child.stdout == (
        f"{tmp_path}: frame 1 cannot be written: got File too large. The files before it are complete.\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["drive_000000.png"]
