"""Claims, for 1, 4, 16 and 64 RTSP cameras of 320x240 at 10 fps on two cores: each camera has its share (the least
served at least 0.9 of the best served), results of up to 16 are at most two periods old at p99, no frame is lost
uncounted, and each camera costs a bounded share of a core and of memory. With 64 at 30 fps, more than two cores decode,
all still have their share and no result is older than some seconds. A camera that freezes takes nothing from others.

Beside it the loop that people write: a `cv2.VideoCapture` thread a camera, which keeps the newest picture, and one loop
that infers on them in turn. Ages are true ones: from the time at which the camera took the frame, which is known from
its number in the pixels. `python -m benchmarks.cameras [--cameras N ...] [--window-s S] [--rounds N]`
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.camera_clip import write_clip
from benchmarks.camera_readers import OPENING_S, READERS, SETTLE_S, Kind, Run, read_cameras
from benchmarks.camera_server import Frozen, Opened, camera_server
from benchmarks.interleave import Claim, conclude

FPS, OVERLOAD_FPS = 10, 30
MIN_FAIRNESS = 0.9
MIN_OVERLOAD_FAIRNESS = 0.95
"""Jain's index: at few results a camera, the least and the best served differ by chance."""

MAX_PERIODS = 2.0
"""Age at p99. One of them is FFmpeg's: its parser gives a picture on when the next one begins."""

MAX_OVERLOAD_AGE_S = 3.0
MAX_COST_RATIO = 2.5
MAX_MIB = 30.0
MIN_OTHERS = 0.95
COMPARED, SEVERAL = 16, 4
FREEZE_S = 9.0


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run comes to.

    Attributes:
        cameras: that gave anything.
        opening_s: until each of them had given something.
        core_ms: milliseconds of processor a second and camera.
        mib: PSS per camera, the rest of the process shared out.
        rates: results a frame of each camera, in the window.
        age_ms: p50 and p99, over all results in the window.
        uncounted: frames that the books have more or less than the camera sent, between two results.
        sound: the books are balanced, nothing is in flight, and every number could be read.
    """

    cameras: int
    opening_s: float
    core_ms: float
    mib: float
    rates: list[float]
    age_ms: tuple[float, float]
    uncounted: int
    sound: bool

    @property
    def fairness(self) -> float:
        """The least served camera's results over the best served one's."""
        return min(self.rates) / max(self.rates)

    @property
    def jain(self) -> float:
        """Jain's index of fairness (Jain, Chiu, Hawe 1984): 1 where all have the same, 1/n where one has all."""
        return sum(self.rates) ** 2 / (len(self.rates) * sum(rate**2 for rate in self.rates))


def figures_of(run: Run, opened: Opened, since_ns: int = 0) -> Figures:
    """Reckon; rates from `since_ns` on."""
    begin_ns, window_s = max(run.begin_ns, since_ns), (run.end_ns - run.begin_ns) / 1e9
    rates, ages_ms, uncounted = [], [], 0
    there = [(camera, results) for camera, results in enumerate(run.results) if results]
    for camera, results in there:
        inside = [result for result in results if begin_ns <= result.at_ns < run.end_ns]
        rates.append(len(inside) / ((run.end_ns - begin_ns) / 1e9 * opened.fps))
        ages_ms += [(result.at_ns - opened.captured_ns(camera, result.number)) / 1e6 for result in inside]
        first, last = results[0], results[-1]
        uncounted += abs((last.number - first.number) - (last.index - first.index))
    p50, p99 = np.percentile(ages_ms, (50, 99)).tolist()
    return Figures(
        cameras=len(there),
        opening_s=(run.begin_ns - opened.start_ns) / 1e9 - SETTLE_S,
        core_ms=run.core_s / window_s / len(there) * 1e3,
        mib=run.pss_mib / len(there),
        rates=rates,
        age_ms=(p50, p99),
        uncounted=uncounted,
        sound=run.balanced and not run.damaged,
    )


def measured(kind: Kind, clip: Path, cameras: int, window_s: float) -> Figures:
    """Run one alternative, and say what came of it."""
    with camera_server(clip, cameras) as opened:
        found = figures_of(read_cameras(kind, opened.port, cameras, window_s), opened)
    print(
        f"{kind:<10} {found.cameras:>2} of {cameras:>2} at {opened.fps} fps  opening {found.opening_s:4.1f} s  "
        f"{found.core_ms:5.1f} ms/s and {found.mib:4.1f} MiB a camera  results {np.mean(found.rates):6.1%}  "
        f"fairness {found.fairness:.3f} (Jain {found.jain:.3f})  "
        f"age p50 {found.age_ms[0]:4.0f} p99 {found.age_ms[1]:4.0f} ms",
        flush=True,
    )
    return found


def compared(clip: Path, cameras: int, window_s: float, rounds: int) -> dict[Kind, list[Figures]]:
    """Both, in turn."""
    found: dict[Kind, list[Figures]] = {kind: [] for kind in READERS}
    for _ in range(rounds):
        for kind, figures in found.items():
            figures.append(measured(kind, clip, cameras, window_s))
    return found


def claims_of(cameras: int, found: dict[Kind, list[Figures]]) -> list[Claim]:
    """Of cameras that two cores can decode."""
    ours, theirs = found["vidseg"], found["plain loop"]
    fairness = median(figures.fairness for figures in ours)
    claims = [Claim(f"{cameras} cameras: fairness >= {MIN_FAIRNESS}", f"{fairness:.3f}", fairness >= MIN_FAIRNESS)]
    age_ms = median(figures.age_ms[1] for figures in ours)
    most_ms = MAX_PERIODS * 1e3 / FPS
    if cameras <= COMPARED:
        claims.append(Claim(f"{cameras} cameras: age p99 <= {most_ms:g} ms", f"{age_ms:.0f} ms", age_ms <= most_ms))
    if cameras >= SEVERAL:
        mib = median(figures.mib for figures in ours)
        claims.append(Claim(f"{cameras} cameras: <= {MAX_MIB:g} MiB each", f"{mib:.1f} MiB", mib <= MAX_MIB))
    if cameras == COMPARED:
        ratio = median(figures.core_ms for figures in ours) / median(figures.core_ms for figures in theirs)
        text = f"{cameras} cameras: cost of each <= {MAX_COST_RATIO} of the plain loop's"
        claims.append(Claim(text, f"{ratio:.2f}", ratio <= MAX_COST_RATIO))
    return [*claims, _counted(f"{cameras} cameras", ours)]


def overload_claims(cameras: int, found: dict[Kind, list[Figures]]) -> list[Claim]:
    """Of more than two cores can decode."""
    ours = found["vidseg"]
    jain, age_s = median(figures.jain for figures in ours), median(figures.age_ms[1] for figures in ours) / 1e3
    name = f"{cameras} cameras, overload"
    fair = Claim(f"{name}: Jain's index >= {MIN_OVERLOAD_FAIRNESS}", f"{jain:.3f}", jain >= MIN_OVERLOAD_FAIRNESS)
    young = Claim(f"{name}: age p99 <= {MAX_OVERLOAD_AGE_S:g} s", f"{age_s:.1f} s", age_s <= MAX_OVERLOAD_AGE_S)
    return [fair, young, _counted(name, ours)]


def _counted(name: str, ours: Sequence[Figures]) -> Claim:
    uncounted = sum(figures.uncounted for figures in ours)
    right = uncounted == 0 and all(figures.sound for figures in ours)
    return Claim(f"{name}: no frame uncounted", f"{uncounted}", right)


def frozen_claim(clip: Path, cameras: int, window_s: float) -> Claim:
    """The last camera freezes; the others' rates from then on."""
    with camera_server(clip, cameras, Frozen(cameras - 1, round(FREEZE_S * FPS))) as opened:
        run = read_cameras("vidseg", opened.port, cameras, window_s + FREEZE_S)
    found = figures_of(run, opened, opened.captured_ns(0, round(FREEZE_S * FPS)))
    rate = min(found.rates[:-1])
    text = f"{cameras} cameras, one freezes: it is told, the others keep >= {MIN_OTHERS} of their frames"
    told = "told" if run.silent == [cameras - 1] else f"told of {run.silent}"
    return Claim(text, f"{told}, {rate:.3f}", rate >= MIN_OTHERS and run.silent == [cameras - 1])


def main() -> None:
    """Measure and conclude."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cameras", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--window-s", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=2, help="of up to 16 cameras; more are measured once")
    arguments = parser.parse_args()
    window_s = arguments.window_s
    claims: list[Claim] = []
    with tempfile.TemporaryDirectory() as name:
        length_s = OPENING_S + SETTLE_S + window_s + FREEZE_S + 5
        clip = write_clip(Path(name) / "clip", round(length_s * FPS), FPS)
        for cameras in arguments.cameras:
            rounds = arguments.rounds if cameras <= COMPARED else 1
            claims += claims_of(cameras, compared(clip, cameras, window_s, rounds))
        if COMPARED in arguments.cameras:
            claims.append(frozen_claim(clip, COMPARED, window_s))
        if max(arguments.cameras) > COMPARED:
            fast = write_clip(Path(name) / "fast", round(length_s * OVERLOAD_FPS), OVERLOAD_FPS)
            claims += overload_claims(max(arguments.cameras), compared(fast, max(arguments.cameras), window_s, 1))
    conclude(*claims)


if __name__ == "__main__":
    main()
