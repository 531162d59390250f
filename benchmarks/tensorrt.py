"""Claims, on a GPU: a frame costs at most 1 ms beside its plan, and the engine gives at least 97 % of the bare plan's
frames.

Bare is the plan alone, one execution behind the other with its data on the device; the engine has copies in and out,
and two batches in flight. Beside that, interleaved in the same run: FP16 against INT8, one picture at a time against
a batch of eight, frames of 1280x720 fitted and drawn on the GPU against on the CPU, with and without CUDA graphs. The
bundles are those of `tests.gpu.material`. `python -m benchmarks.tensorrt`
"""

from __future__ import annotations

import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.interleave import Claim, conclude, median_ms
from tests.gpu.material import Variant, bundles, opened, settings_of
from vidseg.runtime.bundle import Bundle, open_bundle
from vidseg.runtime.clock import SystemClock
from vidseg.runtime.engines import PlacedFrame, predict
from vidseg.runtime.engines.candidates import gpu_usable
from vidseg.runtime.engines.tensorrt.buffers import Buffers
from vidseg.runtime.engines.tensorrt.building import plan_of, this_machine
from vidseg.runtime.engines.tensorrt.engine import TensorRtEngine
from vidseg.runtime.engines.tensorrt.execution import PlanExecution
from vidseg.runtime.engines.tensorrt.plan_cache import PlanCache
from vidseg.runtime.engines.tensorrt.pycuda_driver import PycudaDriver
from vidseg.runtime.frame import Frame, Image
from vidseg.runtime.geometry import placement_of
from vidseg.runtime.overlay import Overlay, OverlayStyle
from vidseg.runtime.segmenter import segmentation_of

MAX_OVERHEAD_MS = 1.0
MIN_THROUGHPUT = 0.97
STREAMS = 8
FRAME_WH = (1280, 720)
RUNS = 50
ROUNDS = 15


@contextmanager
def bare(bundle: Bundle, variant: Variant, plans: Path) -> Iterator[Callable[[], object]]:
    """Runs the plan `RUNS` times, without copies, and waits."""
    machine = this_machine()
    plan = plan_of(bundle, settings_of(variant), machine, PlanCache(plans))
    with PycudaDriver() as cuda, ExitStack() as stack:
        execution = PlanExecution(plan, machine.library, bundle.path.name)
        stack.callback(execution.close)
        buffers = Buffers(cuda, execution.inputs, execution.outputs)
        stack.callback(buffers.free)
        stream = cuda.stream()

        def run() -> None:
            for _ in range(RUNS):
                execution.give(1, buffers.addresses, stream)
            stream.synchronize()

        yield run


def in_flight(engine: TensorRtEngine, batch: NDArray[np.uint8]) -> None:
    """`RUNS` batches, two at a time, as the pipeline does with recordings."""
    pending: deque[Any] = deque()
    for _ in range(RUNS):
        pending.append(engine.enqueue(batch))
        if len(pending) == 2:
            pending.popleft().result()
    while pending:
        pending.popleft().result()


def one_by_one(engine: TensorRtEngine, image: Image) -> None:
    """`RUNS` pictures, each waited for, as the pipeline does with cameras."""
    for _ in range(RUNS):
        predict(engine, image)


def drawn_on_gpu(engine: TensorRtEngine, frame: PlacedFrame) -> None:
    """`RUNS` frames from the camera's size to a picture, on the GPU."""
    for _ in range(RUNS):
        engine.enqueue_frames([frame]).result()


def drawn_on_cpu(engine: TensorRtEngine, frame: PlacedFrame, overlay: Overlay) -> None:
    """The same with fitting and drawing on the CPU."""
    clock = SystemClock()
    for number in range(RUNS):
        prediction = predict(engine, frame.placement.input_from_frame(frame.image))
        shown = Frame("camera", 0, number, clock.now_ns(), 0, "pts", frame.image)
        overlay.draw(segmentation_of(shown, frame.placement, prediction, clock))


def per_frame(alternatives: Mapping[str, Callable[[], object]], pictures: int = 1) -> dict[str, float]:
    """Median milliseconds of a frame, in turns."""
    return {name: ms / RUNS / pictures for name, ms in median_ms(alternatives, ROUNDS).items()}


def times_of(bundle: Bundle, plans: Path) -> dict[str, float]:
    """Milliseconds a frame of everything that is compared."""
    rng = np.random.default_rng(0)
    width, height = bundle.manifest.input.size_wh
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    style = OverlayStyle(legend=False)
    overlay = Overlay(bundle.manifest.output.classes, style)
    picture = rng.integers(0, 256, (*FRAME_WH[::-1], 3), np.uint8)
    frame = PlacedFrame(picture, placement_of(FRAME_WH, (width, height), bundle.manifest.input.fit))
    times: dict[str, float] = {}
    variants: tuple[Variant, ...] = ("fp16", "int8")
    for variant in variants:
        with bare(bundle, variant, plans) as run_bare, opened(bundle, variant, plans, style=style) as engine:
            found = per_frame(
                {
                    "bare": run_bare,
                    "in flight": partial(in_flight, engine, image[None]),
                    "one by one": partial(one_by_one, engine, image),
                    "720p, GPU": partial(drawn_on_gpu, engine, frame),
                    "720p, CPU": partial(drawn_on_cpu, engine, frame, overlay),
                }
            )
        times |= {f"{variant} {name}": ms for name, ms in found.items()}
        with opened(bundle, variant, plans, cuda_graphs=True) as engine:
            times |= {
                f"{variant} graphs {name}": ms
                for name, ms in per_frame(
                    {
                        "in flight": partial(in_flight, engine, image[None]),
                        "one by one": partial(one_by_one, engine, image),
                    }
                ).items()
            }
        with opened(bundle, variant, plans, max_batch=STREAMS) as engine:
            batch = np.stack([image] * engine.max_batch)
            name = f"{variant} batch of {engine.max_batch}"
            times[name] = per_frame({"": partial(in_flight, engine, batch)}, len(batch))[""]
    return times


def claims_of(name: str, times: Mapping[str, float]) -> list[Claim]:
    """What has to hold for each precision."""
    found = []
    for variant in ("fp16", "int8"):
        alone = times[f"{variant} bare"]
        overhead = times[f"{variant} one by one"] - alone
        share = alone / times[f"{variant} in flight"]
        found += [
            Claim(f"{name} {variant}: at most {MAX_OVERHEAD_MS:g} ms beside the plan", f"{overhead:.3f} ms",
                  overhead <= MAX_OVERHEAD_MS),
            Claim(f"{name} {variant}: at least {MIN_THROUGHPUT:.0%} of the bare plan", f"{share:.1%}",
                  share >= MIN_THROUGHPUT),
        ]  # fmt: skip
    return found


def main() -> None:
    """Print times and claims."""
    if not gpu_usable():
        sys.exit("no GPU with TensorRT and pycuda here")
    machine = this_machine()
    print(f"{machine.device.name}, TensorRT {machine.library.version}, ms a frame, medians of {ROUNDS} x {RUNS}\n")
    claims = []
    with tempfile.TemporaryDirectory() as scratch:
        rows = {path.stem: times_of(open_bundle(path), Path(scratch) / "plans") for path in bundles()}
    if not rows:
        sys.exit("no bundles here: python -m tests.gpu.material")
    kinds = dict.fromkeys(kind for times in rows.values() for kind in times)
    print("| | " + " | ".join(rows) + " |")
    print("|---" * (len(rows) + 1) + "|")
    for kind in kinds:
        print(f"| {kind} | " + " | ".join(f"{times.get(kind, np.nan):.3f}" for times in rows.values()) + " |")
    for name, times in rows.items():
        claims += claims_of(name, times)
    conclude(*claims)


if __name__ == "__main__":
    main()
