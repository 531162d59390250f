"""A picture that is shown as live when it is old is believed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import ManualClock
from tests.runtime.web.site import PretendPipeline, result_of
from vidseg.runtime.frame import SourceStatus
from vidseg.runtime.web.board import MAX_SLUG, Board


def _board(clock: ManualClock) -> Board:
    board = Board(clock)
    board.attach(PretendPipeline(("front",)))
    return board


def _write(board: Board, index: int) -> None:
    result = result_of(index)
    board.write(result, result.frame.image)


def test_a_source_is_live_only_while_results_come() -> None:
    clock = ManualClock()
    board = _board(clock)
    started_ns = clock.now_ns()
    (view,) = board.views()
    assert (view.state, view.since_ns, view.fps) == ("waiting", started_ns, 0)
    for index in range(11):
        clock.advance_ms(100)
        _write(board, index)
    (view,) = board.views()
    assert (view.state, view.since_ns) == ("live", None)
    assert round(view.fps, 3) == 10
    last_ns = clock.now_ns()
    clock.advance_ms(3001)
    (view,) = board.views()
    assert (view.state, view.since_ns, view.fps) == ("quiet", last_ns, 0)


def test_word_of_a_lost_source_stands_until_the_next_result() -> None:
    clock = ManualClock()
    board = _board(clock)
    _write(board, 0)
    board.notify(SourceStatus("front", "lost", 77))
    (view,) = board.views()
    assert (view.state, view.since_ns) == ("lost", 77)
    assert view.shown.picture is not None, "it is shown in the dark"
    _write(board, 1)
    assert board.views()[0].state == "live"


def test_a_paused_source_says_so_whatever_else_is_known_and_a_removed_one_is_gone() -> None:
    board, pipeline = Board(ManualClock()), PretendPipeline(("front",))
    board.attach(pipeline)
    board.notify(SourceStatus("front", "lost", 77))
    pipeline.pause("front")
    assert board.views()[0].state == "paused"
    pipeline.names = ()
    assert board.views() == []
    assert board.shown("front").status is None


def test_before_the_pipeline_is_there_sources_are_those_that_were_heard_of() -> None:
    board = Board(ManualClock())
    assert board.views() == []
    board.notify(SourceStatus("rtsp://10.0.0.7/yard", "opening", 1))
    assert [view.id for view in board.views()] == ["10-0-0-7-yard"]


def test_whoever_watches_is_woken_and_nobody_else() -> None:
    board, woken = _board(ManualClock()), []
    with board.watched("front", lambda: woken.append("front")), board.watched("back", lambda: woken.append("back")):
        _write(board, 0)
        board.notify(SourceStatus("front", "silent", 0))
    _write(board, 1)
    assert woken == ["front", "front"]


@given(st.lists(st.text(max_size=60), unique=True, max_size=12))
def test_every_name_has_an_id_of_its_own_that_fits_into_an_address_and_stays(names: list[str]) -> None:
    board, pipeline = Board(ManualClock()), PretendPipeline(tuple(names))
    board.attach(pipeline)
    ids = [view.id for view in board.views()]
    assert len(set(ids)) == len(names)
    for source_id in ids:
        assert source_id.isascii()
        assert source_id.replace("-", "").isalnum()
        assert len(source_id) <= MAX_SLUG + 4
    pipeline.names = tuple(reversed(names))
    assert [view.id for view in board.views()] == ids[::-1]
