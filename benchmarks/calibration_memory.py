"""Claim: calibrating takes the same memory for 50 and for 500 frames at 512x1024 (within 5 %), and less than 2 GiB.

Beside it ONNX Runtime's histogram calibrator, which keeps every activation of every frame, with as many frames as fit
into 16 GiB. Each runs in a process of its own; memory is the peak resident size.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.interleave import Claim, conclude
from benchmarks.zoo import DATA
from vidseg.calibration.frame_store import FrameStore
from vidseg.export.calibrating import calibrate
from vidseg.export.graph import Graph
from vidseg.export.groups import find_groups
from vidseg.export.int8 import candidates_among
from vidseg.export.runner import GraphRunner
from vidseg.runtime.frame import Image
from vidseg.runtime.sources.street.render import Street

MODEL = DATA / "models/espnetv2_s2_city_512x1024.onnx"
SIZE_WH = (1024, 512)
LIMIT = 16 << 30
DIFFERENT = 25  # pictures that are rendered; the rest are the same again, which costs as much memory


@dataclass(frozen=True)
class _Frames:
    calibration: FrameStore
    calibration_sha256: str = "0" * 64


def frames(count: int) -> list[Image]:
    """Pictures of the rendered street; the list holds the same ones again."""
    street = Street(3, SIZE_WH)
    images = [street.render(number * 30, float(number))[0] for number in range(min(count, DIFFERENT))]
    return [images[number % len(images)] for number in range(count)]


def run_ours(graph_file: Path, count: int) -> None:
    """Calibrate on so many frames, as an export does, in this process."""
    graph = Graph(graph_file.read_bytes())
    groups = candidates_among(find_groups(graph))
    with FrameStore(lambda image: image) as store:
        for image in frames(count):
            store.append(image)
        calibrate(GraphRunner("espnetv2", "onnxruntime"), graph, groups, _Frames(store), lambda: None)  # type: ignore[arg-type]


def run_rival(graph_file: Path, count: int) -> None:
    """The histogram calibrator of ONNX Runtime on so many frames, in this process."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator

    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    feeds = iter(frames(count))

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[type-arg]
            image = next(feeds, None)
            return None if image is None else {"image": image[None]}

    with tempfile.TemporaryDirectory() as folder:
        augmented = str(Path(folder) / "augmented.onnx")
        calibrator = create_calibrator(
            str(graph_file), ["Conv"], augmented, CalibrationMethod.Percentile,
        )  # fmt: skip
        calibrator.collect_data(Reader())


def peak_mib(kind: str, graph_file: Path, count: int) -> float | None:
    """Peak resident size of a process that calibrates; None where it ran out of memory."""
    command = [sys.executable, "-m", "benchmarks.calibration_memory", kind, str(graph_file), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


def main() -> None:
    """Measure, or be the process that is measured."""
    if len(sys.argv) == 4:
        {"ours": run_ours, "rival": run_rival}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
        print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
        return
    from vidseg.export.exporter import ExportRequest, export_model
    from vidseg.runtime.bundle import open_bundle

    with tempfile.TemporaryDirectory() as folder:
        out, graph_file = Path(folder) / "model.vidseg", Path(folder) / "model.onnx"
        export_model(ExportRequest(model=MODEL, out=out, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)))
        graph_file.write_bytes(open_bundle(out).members["model.onnx"])
        few, many = (peak_mib("ours", graph_file, count) or float("inf") for count in (50, 500))
        print(f"vidseg: 50 frames {few:.0f} MiB, 500 frames {many:.0f} MiB")
        for count in (10, 25, 50, 100):
            peak = peak_mib("rival", graph_file, count)
            print(f"ONNX Runtime's histogram calibrator: {count} frames {f'{peak:.0f} MiB' if peak else '> 16 GiB'}")
            if peak is None:
                break
    conclude(
        Claim("the same for 50 and 500 frames, within 5 %", f"{many / few:.3f} x", abs(many / few - 1) <= 0.05),
        Claim("below 2 GiB", f"{many:.0f} MiB", many < 2048),
    )


if __name__ == "__main__":
    main()
