"""An event that flickers is an alarm that is switched off; one that is told twice starts a robot twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidseg.runtime.errors import ConfigurationError
from vidseg.runtime.results.events import Rule, Trigger


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=60))
def test_beginnings_and_ends_take_turns_and_noise_between_the_two_shares_changes_nothing(
    shares: list[float | None],
) -> None:
    trigger = Trigger(Rule("crowd", "person", above=0.5, below=0.3))
    changes = []
    for second, share in enumerate(shares):
        change = trigger.update(share, second * 1_000_000_000)
        if change:
            assert share is not None
            assert share >= 0.5 if change == "started" else share <= 0.3
            changes.append(change)
        assert trigger.active == (bool(changes) and changes[-1] == "started")
    assert changes == ["started", "ended"] * (len(changes) // 2) + ["started"] * (len(changes) % 2)


def test_what_does_not_last_is_not_told() -> None:
    trigger = Trigger(Rule("crowd", "person", above=0.5, after_ms=1000))
    told = [trigger.update(share, now * 400_000_000) for now, share in enumerate([0.6, 0.6, 0.1, 0.6, 0.6, 0.6, 0.6])]
    assert told == [None, None, None, None, None, None, "started"]
    assert [trigger.update(share, 10**10 + now * 400_000_000) for now, share in enumerate([0.1, 0.1, None, 0.1])] == [
        None, None, None, "ended",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        {"above": 0},
        {"above": 1.5},
        {"above": 0.5, "below": 0.5},
        {"above": 0.5, "after_ms": -1},
        {"above": 0.5, "below": -0.1},
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="event 'crowd'"):
        Rule(**({"name": "crowd", "class_name": "person"} | wrong))  # type: ignore[arg-type]


def test_what_nobody_has_seen_is_no_presence() -> None:
    """Two pictures an hour apart, with a lost camera between them, are no crowd of an hour."""
    rule = Rule("crowd", "person", above=0.2, after_ms=500)
    trigger = Trigger(rule)
    hour_ns = 3_600_000_000_000
    times_ns = [0, hour_ns, hour_ns + 400_000_000, hour_ns + 500_000_000]
    assert [trigger.update(0.3, now) for now in times_ns] == [None, None, None, "started"]
    trigger = Trigger(rule)
    told = [trigger.update(0.3, now * 400_000_000, epoch) for now, epoch in enumerate([0, 0, 1, 1, 1])]
    assert told == [None, None, None, None, "started"]
    trigger = Trigger(rule)
    unknown = [trigger.update(share, now * 400_000_000) for now, share in enumerate([0.3, None, None, 0.3])]
    assert unknown == [None, None, None, None]


def test_an_event_outlives_a_lost_camera_until_pictures_show_that_it_is_over() -> None:
    trigger = Trigger(Rule("crowd", "person", above=0.2, after_ms=500))
    assert [trigger.update(0.3, 0), trigger.update(0.3, 500_000_000)] == [None, "started"]
    later_ns = 7_200_000_000_000
    assert trigger.update(0.3, later_ns, 1) is None
    assert trigger.active
    gone = [trigger.update(0.0, later_ns + now * 300_000_000, 1) for now in (1, 2, 3)]
    assert gone == [None, None, "ended"]
