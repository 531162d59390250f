"""Bars on a terminal for what takes long; plain lines where there is none."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(what: str, total: float) -> Iterator[Callable[[float], None]]:
    """A bar on a terminal; gives a callable that takes the number done."""
    if not sys.stderr.isatty():
        yield lambda _done: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)


@contextmanager
def progress_stages() -> Iterator[Callable[[str, int], Callable[[], None]]]:
    """Bars for one step after the other; gives what starts a step of so many ticks, 0 for unknown, and gives its tick.

    Without a terminal each step is a line.
    """
    if not sys.stderr.isatty():

        def named(name: str, _ticks: int) -> Callable[[], None]:
            print(name, file=sys.stderr, flush=True)
            return lambda: None

        yield named
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def started(name: str, ticks: int) -> Callable[[], None]:
            for task in progress.tasks:
                if not task.finished:
                    progress.update(task.id, total=task.completed or 1, completed=task.completed or 1)
            number = progress.add_task(name, total=ticks or None)
            return lambda: progress.advance(number)

        yield started
