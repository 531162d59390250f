"""`Pipeline`: the owner of all threads, from the sources to the sinks."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from time import monotonic
from types import TracebackType
from typing import Literal, TypeAlias

from vidseg.runtime.clock import Clock, SystemClock
from vidseg.runtime.engines import Engine
from vidseg.runtime.errors import OpeningCancelledError, SourceError, UsageError
from vidseg.runtime.frame import Image, Segmentation
from vidseg.runtime.pipeline.admission import Admission
from vidseg.runtime.pipeline.books import Books
from vidseg.runtime.pipeline.channel import Channel
from vidseg.runtime.pipeline.commands import Abort, Added, Command, Drain, Ended, Failed, SinkFailed
from vidseg.runtime.pipeline.engine_opening import CancellableOpener
from vidseg.runtime.pipeline.heartbeats import Heartbeats
from vidseg.runtime.pipeline.intake import Intake
from vidseg.runtime.pipeline.ledger import Ledger
from vidseg.runtime.pipeline.options import PipelineOptions
from vidseg.runtime.pipeline.parts import check_parts, outlived
from vidseg.runtime.pipeline.ports import Port, SinkPort
from vidseg.runtime.pipeline.source_set import SourceSet, policy_of
from vidseg.runtime.pipeline.statistics import Meters, Report, Reporter, Statistics
from vidseg.runtime.pipeline.times import ABORT_GRACE_S, OVERDUE_GRACE_S, PUMP_INTERVAL_S, SIGNAL_INTERVAL_S
from vidseg.runtime.pipeline.watchdog import Watchdog
from vidseg.runtime.pipeline.workers import Inferred, InferWorker, RenderWorker
from vidseg.runtime.sinks import Sink
from vidseg.runtime.sources import Source

log = logging.getLogger(__name__)

State: TypeAlias = Literal["new", "running", "draining", "aborting", "stopped"]
Draw: TypeAlias = Callable[[Segmentation, Callable[[], Statistics]], Image]

_SOURCE = "source "
"""Before a source's name, in those of threads."""


class Pipeline:
    """Reads sources, infers, and hands the results to sinks, each in threads of its own.

    Use it in one of two ways, once::

        Pipeline(sources, open_engine, sinks).run()          # to the end, in this thread

        with Pipeline(sources, open_engine) as pipeline:     # results one by one; `break` releases everything
            for segmentation in pipeline: ...

    Results of one source come in the order of capture. Recorded sources lose nothing: they wait for engine and sinks.
    Live ones never wait: what is too slow misses frames, and each one is counted.

    Args:
        sources: at least one; their names differ.
        open_engine: called in the thread that infers; called again once if inference fails twice in a row. A
            `CancellableOpener` is cancelled where the run is to end.
        sinks: their names differ. A sink that fails is detached; the run ends when none is left.
        options: see `PipelineOptions`.
        draw: makes the picture for sinks that want one, from a result and a callable that gives the statistics.
        clock: the time that everything goes by.

    Raises:
        UsageError: no source, two parts of one name, or a sink that wants pictures without `draw`.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        open_engine: Callable[[], Engine],
        sinks: Sequence[Sink] = (),
        *,
        options: PipelineOptions | None = None,
        draw: Draw | None = None,
        clock: Clock | None = None,
    ) -> None:
        check_parts(sources, sinks, has_draw=draw is not None)
        options, clock = options or PipelineOptions(), clock or SystemClock()
        self._watchdog = Watchdog(options.hang_s, clock)
        self._books = Books(Ledger(), Meters(clock), clock, self._watchdog, options.deadline_ms)
        live = [source.name for source in sources if source.live]
        self._heartbeats = Heartbeats(live, options.heartbeat_ms, clock, self._books.ledger.has_in_flight)
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._aborted = threading.Event()
        self._finished = threading.Event()
        self._state: State = "new"
        self._state_lock = threading.Lock()
        self._errors: list[BaseException] = []
        self._survivors: list[str] = []
        self._draw = draw
        self._runner: threading.Thread | None = None
        policies = {source.name: policy_of(source, options) for source in sources}
        self._ports: list[Port] = []
        recorded = [source.name for source in sources if not source.live]
        self._admission = Admission(recorded if live else (), self._ports)
        self._intake = Intake(policies, self._admission.may_take)
        self._admission.on_done = self._intake.wake
        self._inferred: Channel[Sequence[Inferred]] = Channel(1)
        self._sink_ports = [self._port_for(sink) for sink in sinks]
        self._results: Port | None = None
        self._sources = SourceSet(sources, self._intake, self._books, self._heartbeats, options=options)
        self._sources.on_added = self._start_source
        self._works: dict[str, Callable[[], None]] = {
            f"{_SOURCE}{name}": self._sources.worker(name) for name in self._sources.names
        }
        self._cancel_opening = open_engine.cancel if isinstance(open_engine, CancellableOpener) else lambda: None
        self._works["infer"] = InferWorker(
            open_engine,
            self._intake,
            self._inferred,
            self._books,
            admission=self._admission,
            fit=options.fit,
            view_of=self._sources.view,
            aborted=self._aborted,
        )
        self._threads: dict[str, threading.Thread] = {}

    @property
    def state(self) -> State:
        """`new`, `running`, `draining` (sources ended), `aborting` (everything is given up) or `stopped`."""
        return self._state

    def statistics(self) -> Statistics:
        """Rates, ages, stage times and the books at this instant; callable from any thread."""
        detached = tuple(port.name for port in self._sink_ports if not port.attached)
        return self._books.meters.statistics(self._books.ledger.snapshot(), self._watchdog.hanging, detached)

    def start(self) -> None:
        """Start the threads. `run()` and iteration do it by themselves.

        Raises:
            UsageError: it was started or stopped before, or has a window, which `run()` has to serve.
        """
        if self._main_thread_ports():
            raise UsageError("a window works with run() only", "start()", "Call run().")
        self._start()

    def _start(self) -> None:
        with self._state_lock:
            if self._state != "new":
                raise UsageError("a pipeline runs once", f"one that is {self._state}", "Make a new one.")
            self._state = "running"
        self._ports += [*self._sink_ports, *([] if self._results is None else [self._results])]
        for port in self._ports:
            port.on_room = self._intake.wake
        draw = self._draw
        self._works["render"] = RenderWorker(
            self._inferred,
            self._ports,
            self._books,
            draw=None if draw is None else lambda segmentation: draw(segmentation, self.statistics),
            lossless=self._sources.is_recorded,
            admission=self._admission,
        )
        for port in self._sink_ports:
            if not port.sink.main_thread:
                self._works[f"sink {port.name}"] = port
        expected = [*self._works, *(f"sink {port.name}" for port in self._main_thread_ports())]
        for name, work in self._works.items():
            self._threads[name] = self._thread(name, work)
        supervisor = threading.Thread(target=self._supervise, args=(expected,), name="vidseg supervisor", daemon=True)
        for thread in (supervisor, *self._threads.values()):
            thread.start()

    def run(self, report: Report | None = None, report_interval_s: float = 1.0) -> None:
        """Run to the end of the sources, or until `drain()` or `stop()` is called elsewhere.

        Windows are served here, so with one this has to be the process's main thread. `report` is called here too,
        every `report_interval_s`.

        Raises:
            UsageError: it was started before, or has a window and this is not the main thread.
            Exception: the first error of a source, the engine or a sink, as it was raised there.
            StopTimeoutError: a thread did not end.
        """
        ports = self._main_thread_ports()
        if ports and threading.current_thread() is not threading.main_thread():
            raise UsageError("a window works in the main thread only", "run() in another one")
        self._start()
        try:
            self._serve(ports, Reporter(report, report_interval_s))
        except BaseException:  # KeyboardInterrupt
            self.stop()
            raise
        self._raise_first()

    def _serve(self, ports: Sequence[SinkPort], reporter: Reporter) -> None:
        self._runner = threading.current_thread() if ports else None
        try:
            while any(not port.finished for port in ports):
                for port in ports:
                    if not port.step(PUMP_INTERVAL_S / len(ports)):
                        port.pump()
                reporter.report_if_due(self.statistics)
        finally:
            for port in ports:
                port.close_sink()
                self._commands.put(Ended(f"sink {port.name}"))
            self._runner = None
        while not self._finished.wait(min(reporter.remaining_s(), SIGNAL_INTERVAL_S)):
            reporter.report_if_due(self.statistics)

    def __iter__(self) -> Iterator[Segmentation]:
        """Start, and give each result as it comes. Recorded sources wait for the loop; of live ones the newest."""
        if self._main_thread_ports():
            raise UsageError("a window works with run() only", "a loop over results", "Draw in the loop instead.")
        if self._state == "new":
            self._results = Port("loop", 4 if self._sources.all_recorded else 1, self._books)
        self.start()
        assert self._results is not None
        try:
            while (segmentation := self._results.take()) is not None:
                yield segmentation
        except GeneratorExit:
            self.stop()
            raise
        self._finished.wait()
        self._raise_first()

    @property
    def sources(self) -> SourceSet:
        """The sources; they can be added, removed and paused while the pipeline runs."""
        return self._sources

    def drain(self, timeout_s: float | None = None) -> None:
        """End the sources, deliver what is on its way, then stop; returns at once.

        Safe in signal handlers and sinks. After `timeout_s` what is left is given up; at once where nothing could be
        delivered for minutes, because a plan for the GPU is still being built.
        """
        self._commands.put(Drain(timeout_s))

    def abort(self) -> None:
        """Give up what is on its way and finish the sinks' files; returns at once. Safe in signal handlers."""
        self._commands.put(Abort(ABORT_GRACE_S))

    def stop(self, timeout_s: float = ABORT_GRACE_S) -> None:
        """Abort and wait for the end. Works in every state and as often as one likes.

        From one of the pipeline's own threads it returns at once.

        Raises:
            StopTimeoutError: threads that are still alive after `timeout_s`, by name.
        """
        with self._state_lock:
            if self._state == "new":
                self._state = "stopped"
                self._finished.set()
                return
        self.abort()
        if threading.current_thread() in (self._runner, *list(self._threads.values())):
            return
        if not self._finished.wait(timeout_s) or self._survivors:
            alive = [name for name, thread in list(self._threads.items()) if thread.is_alive()]
            raise outlived(alive or self._survivors)

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _port_for(self, sink: Sink) -> SinkPort:
        return SinkPort(
            sink,
            self._books,
            on_failure=lambda port, error: self._commands.put(SinkFailed(port, error)),
            on_stop_request=self.drain,
        )

    def _main_thread_ports(self) -> list[SinkPort]:
        return [port for port in self._sink_ports if port.sink.main_thread]

    def _thread(self, name: str, work: Callable[[], None]) -> threading.Thread:
        return threading.Thread(target=self._guarded, args=(name, work), name=f"vidseg {name}", daemon=True)

    def _start_source(self, source: str) -> None:
        """One more source, where the pipeline runs."""
        with self._state_lock:
            if self._state != "running":
                raise UsageError("a source is added to a pipeline that runs", f"one that is {self._state}")
            name = f"{_SOURCE}{source}"
            self._commands.put(Added(name))
            self._threads[name] = self._thread(name, self._sources.worker(source))
            self._threads[name].start()

    def _end(self, name: str, alive: set[str]) -> None:
        """A thread is done; of a source that was removed, nothing is left."""
        alive.discard(name)
        with self._state_lock:  # one of the same name may be added at once
            if name.startswith(_SOURCE) and self._sources.ended(name.removeprefix(_SOURCE)):
                self._threads.pop(name, None)

    def _guarded(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - re-raised by run()
            self._commands.put(Failed(name, error))
        finally:
            self._commands.put(Ended(name))

    def _supervise(self, expected: list[str]) -> None:
        alive = set(expected)
        deadline: float | None = None
        while alive:
            command = self._next_command(deadline)
            if command is None:
                self._survivors = sorted(alive)
                break
            if isinstance(command, Ended):
                self._end(command.name, alive)
            elif isinstance(command, Added):
                alive.add(command.name)
            elif isinstance(command, Drain):
                self._begin_drain()
                if self._state == "draining" and command.timeout_s is not None:
                    deadline = monotonic() + command.timeout_s
            elif self._is_fatal(command) and self._state != "aborting":
                self._begin_abort()
                deadline = monotonic() + (command.grace_s if isinstance(command, Abort) else ABORT_GRACE_S)
        for thread in list(self._threads.values()):
            thread.join(0 if self._survivors else None)
        self._state = "stopped"
        self._finished.set()

    def _next_command(self, deadline: float | None) -> Command | None:
        """What somebody says next, or time does; None at the end of the last grace. Sinks hear of silent sources."""
        while deadline is None or monotonic() < deadline:
            with suppress(queue.Empty):
                return self._commands.get(timeout=self._patience_s(deadline))
            self._tell_of_silence()
            hanging = self._watchdog.check()
            if hanging is not None and self._state != "aborting":
                return Failed("infer", hanging)
        return None if self._state == "aborting" else Abort(OVERDUE_GRACE_S)

    def _patience_s(self, deadline: float | None) -> float | None:
        """How long the supervisor may sleep: to its deadline, or to the next look at the sources and the device."""
        waits = [None if deadline is None else max(deadline - monotonic(), 0), self._watchdog.interval_s]
        if self._state == "running" and self._heartbeats.interval_s is not None:
            waits.append(self._heartbeats.interval_s / 4)
        return min((wait for wait in waits if wait is not None), default=None)

    def _tell_of_silence(self) -> None:
        if self._state == "running":
            for status in self._heartbeats.due():
                for port in self._sink_ports:
                    port.notify(status)

    def _is_fatal(self, command: Command) -> bool:
        if isinstance(command, Abort):
            return True
        assert isinstance(command, Failed | SinkFailed)
        if isinstance(command.error, OpeningCancelledError):
            return True
        self._errors.append(command.error)
        if isinstance(command, SinkFailed):
            others_go_on = self._results is not None or any(port.attached for port in self._sink_ports)
        else:
            required = self._sources.is_required(command.name.removeprefix(_SOURCE))
            others_go_on = isinstance(command.error, SourceError) and not required
        if len(self._errors) > 1 or (others_go_on and self._intake.any_open):
            log.warning("%s failed: %s", command.name, command.error)  # the first one is raised, but only at the end
        return not others_go_on

    def _begin_drain(self) -> None:
        if self._state == "running":
            self._state = "draining"
        self._sources.stop()
        self._cancel_opening()

    def _begin_abort(self) -> None:
        self._state = "aborting"
        self._aborted.set()
        self._sources.stop()
        self._cancel_opening()
        for frame in self._intake.abort():
            self._books.ledger.drop(frame, "stopped")
        for inferred in chain.from_iterable(self._inferred.abort()):
            self._books.ledger.drop(inferred.frame, "stopped")
        for port in (*self._sink_ports, *((self._results,) if self._results else ())):
            port.abort()

    def _raise_first(self) -> None:
        if self._errors:
            raise self._errors[0]
        if self._survivors:
            raise outlived(self._survivors)
