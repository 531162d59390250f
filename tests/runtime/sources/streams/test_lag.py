"""A picture that is shown half a minute late is worth nothing to a robot, and a jump of a clock is no lag."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vidseg.runtime.sources.streams.lag import FAR_BEHIND_S, MAX_LAG_S, LagMeter


def test_a_decoder_that_keeps_up_leaves_nothing_out() -> None:
    meter = LagMeter()
    assert {meter.decoded(100 + index / 25, index / 25) for index in range(1000)} == {"DEFAULT"}


@given(st.floats(-100e-6, 100e-6), st.integers(0, 1000))
def test_neither_drift_nor_jitter_of_the_network_is_taken_for_lag(drift: float, seed: int) -> None:
    meter = LagMeter()
    for index, late_s in enumerate(np.random.default_rng(seed).uniform(0, 0.3, 500).tolist()):
        stamp_s = index * 2.0  # a quarter of an hour
        assert meter.decoded(50 + stamp_s * (1 + drift) + late_s, stamp_s) == "DEFAULT"


@given(st.floats(1.1, 4))
def test_one_that_is_too_slow_stays_near_the_camera(cost: float) -> None:
    """Time passes by what is decoded: all pictures, half of them, or one in 25."""
    meter, now_s, worst_s = LagMeter(), 0.0, 0.0
    for index in range(5000):
        stamp_s = index / 25
        is_key, is_reference = index % 25 == 0, index % 2 == 0
        needed = {"DEFAULT": True, "NONREF": is_reference, "NONKEY": is_key}[meter.skip]
        if not needed:
            continue
        now_s = max(now_s, stamp_s) + cost / 25
        meter.decoded(now_s, stamp_s)
        worst_s = max(worst_s, now_s - stamp_s)
    assert worst_s < FAR_BEHIND_S + 1.0


def test_it_catches_up_after_a_pause_and_goes_on_with_all() -> None:
    meter = LagMeter()
    meter.decoded(10.0, 0.0)
    assert meter.decoded(10.1 + MAX_LAG_S, 0.04) == "NONREF"
    assert meter.decoded(10.2 + FAR_BEHIND_S, 0.08) == "NONKEY"
    assert meter.decoded(11.3, 1.0) == "NONKEY", "it goes on until it has caught up"
    assert meter.decoded(11.5, 1.48) == "DEFAULT"


def test_stamps_that_begin_anew_are_no_lag() -> None:
    meter = LagMeter()
    meter.decoded(1000.0, 900.0)
    assert meter.decoded(1000.04, 0.0) == "DEFAULT"
    assert meter.decoded(1000.08, 50_000.0) == "DEFAULT"


def test_one_false_stamp_does_not_cost_all_frames_but_the_key_frames_for_ever() -> None:
    meter = LagMeter()
    meter.decoded(0.0, 0.0)
    meter.decoded(0.04, 30.0)
    skipped = [meter.decoded(second, second) for second in range(1, 30)]
    assert skipped[0] == "NONKEY"
    assert skipped[-1] == "DEFAULT"
