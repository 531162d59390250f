"""Times that go backwards make a file that no player opens; times that are off make it run fast or slow."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vidseg.runtime.frame import Frame
from vidseg.runtime.sinks.timeline import JOIN_NS, STEP_NS, Timeline

IMAGE = np.zeros((1, 1, 3), np.uint8)


def _frame(stamp_ns: int, source: str = "a", epoch: int = 0) -> Frame:
    return Frame(source, epoch, 0, 0, stamp_ns, "pts", IMAGE)


frames = st.builds(_frame, st.integers(-(10**19), 10**19), st.sampled_from("abc"), st.integers(0, 2))


@given(st.lists(frames, max_size=30))
def test_time_starts_at_zero_and_always_grows(arriving: list[Frame]) -> None:
    timeline = Timeline()
    times = [timeline.place_ns(frame) for frame in arriving]
    assert times[:1] in ([], [0])
    assert all(late - early >= STEP_NS for early, late in pairwise(times))


@given(st.integers(0, 10**18), st.lists(st.integers(STEP_NS, 10**12), max_size=30))
def test_the_distances_of_one_sources_stamps_are_kept(start_ns: int, distances_ns: list[int]) -> None:
    timeline = Timeline()
    stamps = np.cumsum([start_ns, *distances_ns]).tolist()
    times = [timeline.place_ns(_frame(stamp)) for stamp in stamps]
    assert np.diff(times).tolist() == distances_ns


def test_two_sources_run_side_by_side() -> None:
    timeline = Timeline()
    times = []
    for index in range(100):
        times.append(timeline.place_ns(_frame(index * 40_000_000, "a")))
        timeline.place_ns(_frame(10**15 + index * 40_000_000, "b"))
    assert abs(times[-1] - 99 * 40_000_000) < JOIN_NS


def test_a_reconnect_and_a_clock_that_was_set_leave_no_gap() -> None:
    timeline = Timeline()
    timeline.place_ns(_frame(5_000_000_000))
    assert timeline.place_ns(_frame(5_040_000_000)) == 40_000_000
    assert timeline.place_ns(_frame(17, epoch=1)) == 40_000_000 + JOIN_NS
    assert timeline.place_ns(_frame(10**18, epoch=1)) == 40_000_000 + 2 * JOIN_NS
    assert timeline.place_ns(_frame(0, epoch=1)) == 40_000_000 + 3 * JOIN_NS
    assert timeline.place_ns(_frame(60_000_000_000, epoch=1)) == 60_040_000_000 + 3 * JOIN_NS
