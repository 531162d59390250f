"""Claims: `import vidseg` loads neither NumPy nor OpenCV and takes at most 0.15 s; `vidseg --help` 0.5 s; the first
mask is there at most 2 s after the command, with the choice of the engine remembered."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.interleave import Claim, conclude

ROUNDS = 7
HEAVY = ("numpy", "cv2", "onnxruntime", "openvino", "av", "onnx")


def seconds(command: list[str], environment: dict[str, str]) -> float:
    """How long a command takes until it ends."""
    started = time.perf_counter()
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=120)
    return time.perf_counter() - started


def first_mask_s(environment: dict[str, str], folder: Path) -> float:
    """From the start of `vidseg run` to the first class map on disk."""
    masks = folder / "masks"
    command = [sys.executable, "-m", "vidseg", "run", "--source", "scene://street", "--sink", f"{masks}/"]
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not (masks.is_dir() and any(masks.glob("*.png"))):
            if process.poll() is not None or time.perf_counter() - started > 60:
                raise RuntimeError(f"no mask after {time.perf_counter() - started:.1f} s, exit code {process.poll()}")
            time.sleep(0.005)
        return time.perf_counter() - started
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Measure and conclude."""
    loaded = json.loads(
        subprocess.run(
            [sys.executable, "-c", "import sys, json, vidseg; print(json.dumps(sorted(sys.modules)))"],
            check=True, capture_output=True, text=True,
        ).stdout
    )  # fmt: skip
    heavy = [name for name in HEAVY if name in loaded]
    times: dict[str, list[float]] = {"python": [], "import": [], "help": [], "first mask": [], "new machine": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        remembered = os.environ | {"XDG_CACHE_HOME": str(folder)}
        bench = "from vidseg.runtime.pipeline.opening import demo_bundle_path as p; print(p())"
        bundle = subprocess.run(
            [sys.executable, "-c", bench], check=True, capture_output=True, text=True
        ).stdout.strip()
        seconds([sys.executable, "-m", "vidseg", "bench", bundle, "--seconds", "2"], remembered)
        for number in range(ROUNDS):
            times["python"].append(seconds([sys.executable, "-c", "pass"], remembered))
            times["import"].append(seconds([sys.executable, "-c", "import vidseg"], remembered))
            times["help"].append(seconds([sys.executable, "-m", "vidseg", "--help"], remembered))
            (folder / f"a{number}").mkdir()
            times["first mask"].append(first_mask_s(remembered, folder / f"a{number}"))
            (folder / f"b{number}").mkdir()
            forgetful = os.environ | {"XDG_CACHE_HOME": str(folder / f"b{number}")}
            times["new machine"].append(first_mask_s(forgetful, folder / f"b{number}"))
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        print(f"{name:<12} {median:6.3f} s")
    imported = medians["import"] - medians["python"]
    conclude(
        Claim("`import vidseg` loads nothing heavy", ", ".join(heavy) or "nothing", not heavy),
        Claim("`import vidseg` <= 0.15 s", f"{imported:.3f} s", imported <= 0.15),
        Claim("`vidseg --help` <= 0.5 s", f"{medians['help']:.3f} s", medians["help"] <= 0.5),
        Claim("first mask <= 2 s, engine remembered", f"{medians['first mask']:.2f} s", medians["first mask"] <= 2),
        Claim("first mask <= 2 s, nothing remembered", f"{medians['new machine']:.2f} s", medians["new machine"] <= 2),
    )


if __name__ == "__main__":
    main()
