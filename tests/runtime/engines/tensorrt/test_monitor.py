"""A bar that stands still, or jumps back, looks like a hang."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidseg.runtime.engines.tensorrt.monitor import Phase, share_done


def test_phases_inside_of_each_other_are_one_share() -> None:
    phases = {"all": Phase(None, 4, 2), "part": Phase("all", 10, 5), "small": Phase("part", 2, 1)}
    assert share_done(phases, "all") == 0.5
    assert share_done(phases, "part") == pytest.approx(0.5 + 0.5 / 4)
    assert share_done(phases, "small") == pytest.approx((2 + (5 + 0.5) / 10) / 4)
    assert share_done(phases, "gone") == 0


@given(
    st.dictionaries(
        st.sampled_from("abcdef"),
        st.builds(Phase, st.none() | st.sampled_from("abcdef"), st.integers(-1, 5), st.integers(0, 9)),
    ),
    st.sampled_from("abcdef"),
)
def test_whatever_the_library_tells_the_share_stays_in_range(phases: dict[str, Phase], name: str) -> None:
    assert 0 <= share_done(phases, name) <= 1
