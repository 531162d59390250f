"""Claims: exporting ENet (1.3 GMAC) with INT8 takes two cores at most 60 s to calibrate on 100 frames, and at most 5
minutes in all, with gate and report.

The frames are real: CamVid's training and validation pictures and a drive. Prints the seconds of each stage of the
export, and those of processors: both cores busy make two of them a second. `python -m benchmarks.export_time`
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.interleave import Claim, conclude
from benchmarks.zoo import DATA, report_of, zoo
from vidseg.export.exporter import ExportRequest, export_model
from vidseg.export.quantization import QuantizationRequest
from vidseg.runtime.bundle import open_bundle

CORES = 2
FRAMES = 100
MAX_CALIBRATION_S = 60.0
MAX_EXPORT_S = 300.0
SOURCES = ("camvid/train32", "camvid/val", "videos/driving_highway_720p24.mp4")


class Stopwatch:
    """Adds up the seconds of each stage, and those of processors; a stage lasts until the next one starts."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.processor_seconds: dict[str, float] = {}
        self._name = "comparing with the original"  # before the first stage is named
        self._started = time.perf_counter(), time.process_time()

    def stage(self, name: str, _ticks: int) -> Callable[[], None]:
        """Start a stage, as `export_model` takes it."""
        self.stop()
        self._name = name.split(" /", maxsplit=1)[0]  # without the folder of the frames
        return lambda: None

    def stop(self) -> None:
        """End the last stage."""
        now = time.perf_counter(), time.process_time()
        for column, started, ended in zip((self.seconds, self.processor_seconds), self._started, now, strict=True):
            column[self._name] = column.get(self._name, 0.0) + ended - started
        self._started = now


def link_frames(folder: Path) -> None:
    """Links to all pictures, and to the pictures of the drive, as one folder of frames."""
    import av
    import cv2

    for number, source in enumerate(SOURCES):
        if not source.endswith(".mp4"):
            for path in sorted((DATA / source).iterdir()):
                (folder / f"{number}-{path.name}").symlink_to(path)
            continue
        with av.open(str(DATA / source)) as container:
            for index, frame in enumerate(container.decode(video=0)):
                cv2.imwrite(str(folder / f"{number}-{index:04}.png"), frame.to_ndarray(format="bgr24"))


def main() -> None:
    """Export, print the table and the claims."""
    models = zoo(["enet"])
    if not models:
        sys.exit("the real models are not here (../shared/data)")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    with tempfile.TemporaryDirectory() as scratch:
        folder, out = Path(scratch) / "frames", Path(scratch) / "enet.vidseg"
        folder.mkdir()
        link_frames(folder)
        quantization = QuantizationRequest(frames_uri=str(folder), frames=FRAMES, cache=None)
        watch = Stopwatch()
        export_model(
            ExportRequest(model=models[0].file, out=out, quantization=quantization, **models[0].options),
            stage=watch.stage,
        )
        watch.stop()
        report = report_of(open_bundle(out))
    total = sum(watch.seconds.values())
    print("| stage | s | of processors |\n|---|---|---|")
    for name, seconds in watch.seconds.items():
        print(f"| {name} | {seconds:.1f} | {watch.processor_seconds[name]:.1f} |")
    print(f"| all | {total:.1f} | {sum(watch.processor_seconds.values()):.1f} |")
    print(f"{report['frames']['counts']}; verdict {report['verdict']}")
    frames, calibrating = len(report["frames"]["calibration"]), watch.seconds["calibrating"]
    conclude(
        Claim(f"{FRAMES} calibration frames", str(frames), frames == FRAMES),
        Claim(
            f"calibration takes at most {MAX_CALIBRATION_S:.0f} s",
            f"{calibrating:.1f} s",
            calibrating <= MAX_CALIBRATION_S,
        ),
        Claim(f"the export takes at most {MAX_EXPORT_S:.0f} s", f"{total:.1f} s", total <= MAX_EXPORT_S),
    )


if __name__ == "__main__":
    main()
