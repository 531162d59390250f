"""A queue that loses, reorders or does not wake makes the pipeline lie or hang."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import picture_of
from vidseg.runtime.frame import Frame
from vidseg.runtime.pipeline.channel import Channel
from vidseg.runtime.pipeline.intake import LATEST, LOSSLESS, REST_S, Intake, every_frame

pytestmark = pytest.mark.timeout(20)


def _frame(index: int, source: str = "a") -> Frame:
    return Frame(source, 0, index, 0, 0, "pts", picture_of(index))


def _in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@given(st.integers(1, 4), st.lists(st.sampled_from(["put", "get"]), max_size=40))
def test_put_latest_keeps_the_newest_in_order(size: int, steps: list[str]) -> None:
    channel: Channel[int] = Channel(size)
    model: list[int] = []
    for number, step in enumerate(steps):
        if step == "put":
            given_up = channel.put_latest(number)
            model.append(number)
            assert given_up == model[:-size]
            model = model[-size:]
        elif model:
            assert channel.get() == model.pop(0)
    assert channel.abort() == model


@given(st.integers(1, 4), st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=40))
def test_no_source_is_pushed_out_by_others(size: int, steps: list[tuple[str, bool]]) -> None:
    """A camera whose results come first in each batch would never be seen on a page that is slow."""
    channel: Channel[tuple[str, int]] = Channel(size)
    waiting: list[tuple[str, int]] = []
    for number, (source, is_put) in enumerate(steps):
        if is_put:
            given_up = channel.put_latest((source, number), lambda item: item[0])
            waiting = [item for item in [*waiting, (source, number)] if item not in given_up]
            assert (source, number) in waiting
            assert len(waiting) <= max(size, len({name for name, _ in waiting}))
            for name, old in given_up:
                assert any(other == name and newer > old for other, newer in waiting)
        elif waiting:
            assert channel.get() == waiting.pop(0)
    assert channel.abort() == waiting


def test_what_has_to_stay_is_not_outnumbered() -> None:
    channel: Channel[tuple[str, bool]] = Channel(2)
    group = {"kept": None}
    for name in ("kept", "kept"):
        assert channel.put((name, True))
    assert channel.put_latest(("live", False), lambda item: group.get(item[0], item[0])) == [("live", False)]
    assert channel.get() == ("kept", True)
    assert channel.put_latest(("live", False), lambda item: group.get(item[0], item[0])) == []
    assert channel.put_kept(("kept", True), lambda item: group.get(item[0], item[0])) == [("live", False)]


def test_a_blocked_put_ends_when_the_channel_closes() -> None:
    channel: Channel[int] = Channel(1)
    assert channel.put(1)
    taken: list[bool] = []
    thread = _in_thread(lambda: taken.append(channel.put(2)))
    channel.close()
    thread.join(5)
    assert taken == [False]
    assert channel.get() == 1
    assert channel.get() is None
    assert channel.finished


def test_a_blocked_get_ends_when_the_channel_closes() -> None:
    channel: Channel[int] = Channel(1)
    got: list[int | None] = []
    thread = _in_thread(lambda: got.append(channel.get()))
    channel.close()
    thread.join(5)
    assert got == [None]


def test_lossless_puts_wait_for_room_and_keep_the_order() -> None:
    intake = Intake({"a": LOSSLESS})
    given_up: list[Frame] = []

    def feed() -> None:
        for index in range(50):
            given_up.extend(intake.put(_frame(index)))
        intake.finish("a")

    thread = _in_thread(feed)
    taken = []
    while (frame := intake.take(wait=True)) is not None:
        taken.append(frame.index)
    thread.join(5)
    assert taken == list(range(50))
    assert given_up == []
    assert intake.finished


def test_a_live_slot_holds_the_newest_frame_only() -> None:
    intake = Intake({"a": LATEST})
    given_up = [frame.index for index in range(5) for frame in intake.put(_frame(index))]
    assert given_up == [0, 1, 2, 3]
    newest = intake.take(wait=True)
    assert newest is not None
    assert newest.index == 4
    assert intake.take(wait=False) is None


def test_a_source_among_others_rests_until_its_frame_is_taken_and_no_longer_than_they_need() -> None:
    """One alone never rests: it would be late for the next frame."""
    alone, among = Intake({"a": LATEST}), Intake(dict.fromkeys("abc", LATEST))
    for intake in (alone, among):
        intake.put(_frame(0))
    alone.rest("a")
    began = monotonic()
    among.rest("a")
    assert monotonic() - began >= 2 * REST_S
    many = Intake({**dict.fromkeys(map(str, range(10_000)), LATEST), "recorded": LOSSLESS})  # each would rest for 20 s
    began = monotonic()
    many.put(_frame(0, "recorded"))
    many.rest("recorded")
    many.rest("8")  # nothing of it waits
    many.put(_frame(0, "7"))
    thread = _in_thread(lambda: many.rest("7"))
    while (taken := many.take(wait=True)) is not None and taken.source != "7":
        pass
    thread.join(10)
    assert monotonic() - began < 10


def test_every_frame_keeps_eight_in_order() -> None:
    intake = Intake({"a": every_frame(100)})
    given_up = [frame.index for index in range(10) for frame in intake.put(_frame(index))]
    assert given_up == [0, 1]
    intake.finish("a")
    taken = []
    while (frame := intake.take(wait=True)) is not None:
        taken.append(frame.index)
    assert taken == list(range(2, 10))


def test_sources_are_served_in_turn() -> None:
    intake = Intake(dict.fromkeys("abc", LOSSLESS))
    for source in "abc":
        for index in range(3):
            intake.put(_frame(index, source))
        intake.finish(source)
    served = []
    while (frame := intake.take(wait=True)) is not None:
        served.append(frame.source + str(frame.index))
    assert served == ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "b2", "c2"]


def test_abort_gives_back_what_waits_and_wakes_a_blocked_source() -> None:
    intake = Intake({"a": LOSSLESS})
    given_up: list[Frame] = []

    def feed() -> None:
        for index in range(10):  # the slot holds four: the fifth blocks
            given_up.extend(intake.put(_frame(index)))

    thread = _in_thread(feed)
    first = intake.take(wait=True)
    assert first is not None
    held = intake.abort()
    thread.join(5)
    assert not thread.is_alive()
    assert sorted(frame.index for frame in [first, *held, *given_up]) == list(range(10))
