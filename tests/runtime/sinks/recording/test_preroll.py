"""What happened before the alarm is why people record."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vidseg.runtime.sinks.recording.packets import EncodedPicture
from vidseg.runtime.sinks.recording.preroll import PreRoll


def picture(time_s: float, size: int, *, keyframe: bool) -> EncodedPicture:
    return EncodedPicture(bytes(size), "h264", round(time_s * 60_000), 0, keyframe)


pictures = st.lists(st.tuples(st.floats(0.001, 3), st.booleans(), st.integers(1, 50)), min_size=1, max_size=80)


@given(pictures, st.floats(0, 10))
def test_it_holds_what_is_promised_from_a_keyframe_and_no_keyframe_more(
    gaps: list[tuple[float, bool, int]], promised_s: float
) -> None:
    roll, time_s = PreRoll(promised_s, 1 << 30), 0.0
    pushed: list[EncodedPicture] = []
    for gap_s, keyframe, size in gaps:
        time_s += gap_s
        pushed.append(picture(time_s, size, keyframe=keyframe))
        roll.push(pushed[-1])
        held = list(roll)
        usable = next((number for number, one in enumerate(pushed) if one.is_keyframe), len(pushed))
        assert held == pushed[len(pushed) - len(held) :]  # the newest, in order
        assert roll.size_bytes == sum(len(one.data) for one in held)
        if held:
            start_ns = pushed[-1].time_ns - round(promised_s * 1e9)
            assert held[0].is_keyframe
            assert held[0].time_ns <= start_ns or held[0] is pushed[usable]
            later = [one for one in held[1:] if one.is_keyframe]
            assert not later or later[0].time_ns > start_ns
        else:
            assert usable == len(pushed)


@given(pictures, st.integers(10, 200))
def test_it_never_takes_more_memory_than_it_may(gaps: list[tuple[float, bool, int]], max_bytes: int) -> None:
    roll, time_s = PreRoll(1000, max_bytes), 0.0
    for gap_s, keyframe, size in gaps:
        time_s += gap_s
        roll.push(picture(time_s, size, keyframe=keyframe))
        held = list(roll)
        assert sum(len(one.data) for one in held) == roll.size_bytes <= max_bytes
        assert not held or held[0].is_keyframe


def test_after_a_clear_it_waits_for_a_keyframe() -> None:
    roll = PreRoll(1, 1000)
    roll.push(picture(0, 1, keyframe=True))
    roll.clear()
    roll.push(picture(1, 1, keyframe=False))
    assert list(roll) == []
    assert (roll.size_bytes, roll.held_s) == (0, 0)
