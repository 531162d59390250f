"""The sources of a pipeline: they can be added, removed and paused while it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from vidseg.runtime.errors import UsageError
from vidseg.runtime.frame import SourceState
from vidseg.runtime.pipeline.books import Books
from vidseg.runtime.pipeline.heartbeats import Heartbeats
from vidseg.runtime.pipeline.intake import LATEST, LOSSLESS, Intake, SlotPolicy, every_frame
from vidseg.runtime.pipeline.options import PipelineOptions
from vidseg.runtime.pipeline.retry import Retry
from vidseg.runtime.pipeline.source_control import SourceControl
from vidseg.runtime.pipeline.source_worker import SourceWorker
from vidseg.runtime.sources import Source
from vidseg.runtime.sources.opening import source_from_uri
from vidseg.runtime.view import WHOLE, View


def policy_of(source: Source, options: PipelineOptions) -> SlotPolicy:
    """How frames of a source wait for the device."""
    if not source.live:
        return LOSSLESS
    return every_frame(options.max_age_ms) if options.every_frame else LATEST


class SourceSet:
    """Knows every source by its name. Has no thread: the pipeline runs the workers. Callable from any thread.

    Args:
        sources: those that are there from the start.
        intake: has their slots.
        books: where frames are counted.
        heartbeats: of the live ones.
        options: of the pipeline.

    Attributes:
        on_added: starts the thread of one more source, by name; raises `UsageError` where that is too late.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        intake: Intake,
        books: Books,
        heartbeats: Heartbeats,
        *,
        options: PipelineOptions,
    ) -> None:
        self._intake = intake
        self._books = books
        self._heartbeats = heartbeats
        self._options = options
        self._lock = threading.RLock()
        self._sources = {source.name: source for source in sources}
        self._controls = {source.name: SourceControl(closes=source.live) for source in sources}
        self._recorded = {source.name for source in sources if not source.live}
        self._workers: dict[str, SourceWorker] = {}
        self._next_epochs: dict[str, int] = {}
        self._views = dict(options.views)
        self._leaving: set[str] = set()
        self.on_added: Callable[[str], None] = lambda _name: None

    @property
    def names(self) -> list[str]:
        """Of all that are here."""
        with self._lock:
            return list(self._sources)

    @property
    def paused(self) -> frozenset[str]:
        """Names of those that are told to wait."""
        with self._lock:
            return frozenset(name for name, control in self._controls.items() if control.paused)

    @property
    def all_recorded(self) -> bool:
        """True where each of them can wait."""
        return len(self._recorded) == len(self._sources)

    def is_recorded(self, name: str) -> bool:
        """True for a source that can wait; also after it has ended."""
        return name in self._recorded

    def is_required(self, name: str) -> bool:
        """True for a source without which nothing goes."""
        return name in self._options.required

    def state(self, name: str) -> SourceState | None:
        """What a live source does; None for others."""
        return self._heartbeats.state(name)

    def worker(self, name: str) -> SourceWorker:
        """What its thread does."""
        retry: Retry = "never" if name in self._options.required else self._options.retry
        several = sum(source.live for source in self._sources.values()) > 1
        if retry == "once_seen" and several:  # the others go on, and nobody starts them anew for this one
            retry = "always"
        self._workers[name] = SourceWorker(
            self._sources[name], self._intake, self._books, self._heartbeats, self._controls[name],
            retry=retry, first_epoch=self._next_epochs.get(name, 0),
        )  # fmt: skip
        return self._workers[name]

    def view(self, name: str) -> View:
        """What of a source's pictures counts."""
        return self._views.get(name, WHOLE)

    def add(self, source: Source | str, view: View = WHOLE) -> None:
        """Read one more live source from now on.

        Args:
            source: or its URI, as `vidseg run --source` takes it; its name is not one of those that are here.
            view: what of its pictures counts.

        Raises:
            UsageError: it is recorded, there is one of its name, or one that has not let go yet, the URI is not
                understood, or the pipeline does not run.
        """
        source = source_from_uri(source) if isinstance(source, str) else source
        if not source.live:
            raise UsageError(
                f"{source.name}: a recorded source has to be there from the start", "", "Start a run of it."
            )
        with self._lock:
            if source.name in self._leaving:
                raise UsageError(f"{source.name} was removed and has not let go yet", "", "Add it again in a moment.")
            if source.name in self._sources:
                raise UsageError("two sources are the same", f"{source.name} twice", "Name each one once.")
            if not self._intake.add(source.name, policy_of(source, self._options)):
                raise UsageError(f"{source.name} cannot be added", "a run that is over", "Start a new one.")
            self._heartbeats.add(source.name)
            self._sources[source.name] = source
            self._controls[source.name] = SourceControl(closes=True)
            self._views[source.name] = view
        try:
            self.on_added(source.name)
        except UsageError:
            self._forget(source.name)
            raise

    def remove(self, name: str) -> None:
        """Read a source no more; returns at once. Its name is free again when it has let go. The last one ends the run.

        Raises:
            UsageError: there is none of that name.
        """
        with self._lock:
            control = self._control(name)
            self._leaving.add(name)
        control.stop()

    def pause(self, name: str) -> None:
        """Let a source wait: a live one is closed meanwhile. Returns at once.

        Raises:
            UsageError: there is none of that name.
        """
        self._control(name).pause()

    def resume(self, name: str) -> None:
        """Let a source that waits go on; a live one is opened again, and is in its next epoch.

        Raises:
            UsageError: there is none of that name.
        """
        self._control(name).resume()

    def stop(self) -> None:
        """End all of them; their frames are still delivered."""
        with self._lock:
            controls = list(self._controls.values())
        for control in controls:
            control.stop()

    def ended(self, name: str) -> bool:
        """Its thread is done. True for one that was removed: it is forgotten, with the frames that wait of it."""
        if name not in self._leaving:
            return False
        self._forget(name)
        return True

    def _control(self, name: str) -> SourceControl:
        with self._lock:
            if name not in self._controls:
                raise UsageError("there is no such source", name, f"There is {', '.join(self._controls) or 'none'}.")
            return self._controls[name]

    def _forget(self, name: str) -> None:
        with self._lock:
            del self._sources[name], self._controls[name]
            self._leaving.discard(name)
            worker = self._workers.pop(name, None)
            if worker is not None:
                self._next_epochs[name] = worker.next_epoch
            self._heartbeats.removed(name)
            for frame in self._intake.remove(name):
                self._books.ledger.drop(frame, "stopped")
