"""The demo model at 480x360 from source to overlay: frames a second on this machine's cores, and where each
core-millisecond goes. Claim: the parts that are named add up to at least 0.85 of what the process spends."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from benchmarks.interleave import Claim, conclude
from benchmarks.material import PicturesTaken
from vidseg.runtime.bundle import open_bundle
from vidseg.runtime.clock import SystemClock
from vidseg.runtime.engines.candidates import candidates_of
from vidseg.runtime.engines.choice import choose_engine
from vidseg.runtime.frame import Frame
from vidseg.runtime.geometry import placement_of
from vidseg.runtime.overlay import Overlay
from vidseg.runtime.pipeline import Pipeline
from vidseg.runtime.pipeline.opening import demo_bundle_path
from vidseg.runtime.segmenter import segmentation_of
from vidseg.runtime.sources.scene import SceneOptions, SceneSource
from vidseg.runtime.sources.street.render import Street

SIZE_WH = (480, 360)
FRAMES = 150
ROUNDS = 3
MIN_NAMED = 0.85


def core_ms(run: Callable[[], object], count: int = 30) -> float:
    """Milliseconds of all cores that the process spends on one pass, the median of three measurements."""
    run()
    measured = []
    for _ in range(3):
        started = time.process_time()
        for _ in range(count):
            run()
        measured.append((time.process_time() - started) * 1e3 / count)
    return statistics.median(measured)


def main() -> None:
    """Measure and conclude."""
    bundle = open_bundle(demo_bundle_path())
    chosen = choose_engine(bundle)
    overlay = Overlay(bundle.manifest.output.classes)
    rates, spent_ms = [], []
    for _ in range(ROUNDS):
        source = SceneSource(SceneOptions(size_wh=SIZE_WH, frames=FRAMES, live=False))
        pipeline = Pipeline(
            [source], lambda: chosen.open(bundle), [PicturesTaken()],
            draw=lambda result, _statistics: overlay.draw(result, ["30 fps  age 31 ms"]),
        )  # fmt: skip
        started = time.process_time()
        pipeline.run()
        spent_ms.append((time.process_time() - started) * 1e3 / FRAMES)
        rates.append(pipeline.statistics().mean_fps)
    street = Street(0, SIZE_WH)
    image, _ = street.render(30, 1.0)
    frame = Frame("bench", 0, 0, 0, 0, "pts", image)
    placement = placement_of(SIZE_WH, SIZE_WH, "stretch")
    with chosen.open(bundle) as engine:
        outputs = {name: values[0] for name, values in engine.enqueue(image[None]).result().items()}
        result = segmentation_of(frame, placement, engine.decode(outputs), SystemClock())
        parts = {
            "render the street": core_ms(lambda: street.render(30, 1.0)),
            "lay on the input": core_ms(lambda: placement.input_from_frame(image)),
            "infer": core_ms(lambda: engine.enqueue(image[None]).result()),
            "decode": core_ms(lambda: engine.decode(outputs)),
            "overlay": core_ms(lambda: overlay.draw(result, ["30 fps  age 31 ms"])),
        }
    total_ms = statistics.median(spent_ms)
    print(f"{chosen} of {len(candidates_of(bundle))} candidates: {statistics.median(rates):.1f} fps")
    for name, part_ms in parts.items():
        print(f"{name:<18} {part_ms:6.2f} core-ms a frame   {part_ms / total_ms:6.1%}")
    named = sum(parts.values()) / total_ms
    print(f"{'the whole process':<18} {total_ms:6.2f} core-ms a frame")
    conclude(Claim(f"the named parts are >= {MIN_NAMED:.0%} of it", f"{named:.0%}", named >= MIN_NAMED))


if __name__ == "__main__":
    main()
