"""Streams of the fake GPU: what is given to them is done when somebody waits, in an order that they allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.engines.tensorrt.cuda import Address, Event, Grid, Stream

if TYPE_CHECKING:
    from tests.fake_cuda import FakeCuda

Clock: TypeAlias = dict[int, int]
"""By stream: how many pieces of its work are known to be done before."""

Arguments: TypeAlias = Sequence[int | float]


class RuleBroken(AssertionError):  # noqa: N818 - it is an assertion
    """A use of CUDA that a device would answer with wrong results, a crash or a leak."""


@dataclass(slots=True, eq=False)
class FakeBlock:
    """Some memory with who touched it last."""

    address: Address
    values: NDArray[np.uint8]
    on_device: bool
    write: tuple[int, int] | None = None
    reads: dict[int, int] = field(default_factory=dict)
    alive: bool = True


@dataclass(frozen=True, slots=True)
class FakeFunction:
    """What a kernel does.

    Attributes:
        run: called with the device, the grid, the block and the arguments.
        writes: places of those arguments that are addresses of what it writes; it reads at the others.
    """

    run: Callable[[FakeCuda, Grid, Grid, Arguments], None]
    writes: frozenset[int]


@dataclass(slots=True, eq=False)
class _Work:
    clock: Clock
    run: Callable[[], None]
    done: bool = False


class FakeStream:
    """See `Stream`. Does its work when somebody waits."""

    def __init__(self, cuda: FakeCuda, handle: int) -> None:
        self._cuda = cuda
        self._handle = handle
        self._works: list[_Work] = []
        self._clock: Clock = {}

    @property
    def handle(self) -> int:
        return self._handle

    def append(self, run: Callable[[], None], reads: Sequence[FakeBlock], writes: Sequence[FakeBlock]) -> None:
        """Put work behind what is there, and check that it is ordered behind all that it depends on."""
        clock = merged(self._clock, self._cuda.host_clock())
        number = len(self._works) + 1
        for block in (*reads, *writes):
            if block.write and clock.get(block.write[0], 0) < block.write[1]:
                raise RuleBroken(f"a race: stream {self._handle} and {block.write[0]} use the same memory, unordered")
        for block in writes:
            late = [stream for stream, read in block.reads.items() if clock.get(stream, 0) < read]
            if late:
                raise RuleBroken(f"a race: stream {self._handle} writes what stream {late[0]} may still read")
        self._clock = clock | {self._handle: number}
        for block in reads:
            block.reads[self._handle] = number
        for block in writes:
            block.write, block.reads = (self._handle, number), {}
        self._works.append(_Work(dict(self._clock), run))

    def wait(self, event: Event) -> None:
        self._cuda.check_thread()
        assert isinstance(event, FakeEvent)
        mark = event.mark
        if mark is not None:  # one that was never set is passed already
            self._clock = merged(self._clock, mark)

    def synchronize(self) -> None:
        self._cuda.finish(self.position())

    def position(self) -> Clock:
        """All that it waits for and has been given so far."""
        return merged(self._clock, {self._handle: len(self._works)})

    def run_to(self, number: int) -> None:
        """Do the work up to a number, behind what it is ordered behind."""
        for index in range(number):
            work = self._works[index]
            if not work.done:
                work.done = True
                for stream, count in work.clock.items():
                    if stream != self._handle:
                        self._cuda.stream_of(stream).run_to(count)
                work.run()


def merged(first: Clock, second: Clock) -> Clock:
    """What both know."""
    return {stream: max(first.get(stream, 0), second.get(stream, 0)) for stream in {*first, *second}}


class FakeEvent:
    """See `Event`."""

    def __init__(self, cuda: FakeCuda, *, timing: bool) -> None:
        self._cuda = cuda
        self._timing = timing
        self.mark: Clock | None = None

    def record(self, stream: Stream) -> None:
        self._cuda.check_thread()
        self._cuda.refuse_while_recording("a mark that nothing recorded waits for")
        assert isinstance(stream, FakeStream)
        self.mark = stream.position()

    def synchronize(self) -> None:
        self._cuda.finish(self.mark or {})

    def elapsed_ms(self, since: Event) -> float:
        assert isinstance(since, FakeEvent)
        if not (self._timing and since._timing and self.mark and since.mark):
            raise RuleBroken("the time between events that do not measure it, or were never set")
        return float(sum(self.mark.values()) - sum(since.mark.values()))


class FakeKernel:
    """See `Kernel`."""

    def __init__(self, cuda: FakeCuda, function: FakeFunction | None, signature: str) -> None:
        self._cuda = cuda
        self._function = function
        self._signature = signature

    def launch(self, stream: Stream, grid: Grid, block: Grid, *arguments: int | float) -> None:
        self._cuda.count_launch()
        function = self._function
        if function is None:
            raise RuleBroken("a kernel that the fake has no function for")
        if len(arguments) != len(self._signature):
            raise RuleBroken(f"{len(arguments)} arguments for the signature {self._signature}")
        if np.prod(block) > 1024 or min(*grid, *block) < 1 or max(grid[1:]) > 65535:
            raise RuleBroken(f"a device takes no grid of {grid} blocks of {block}")
        if not set(function.writes) <= {n for n, code in enumerate(self._signature) if code == "P"}:
            raise RuleBroken("a kernel writes at what is no address")
        pointers = {
            number: self._cuda.block_at(int(value), 1)
            for number, (code, value) in enumerate(zip(self._signature, arguments, strict=True))
            if code == "P"
        }
        self._cuda.give(
            stream,
            lambda: function.run(self._cuda, grid, block, arguments),
            reads=[one for number, one in pointers.items() if number not in function.writes],
            writes=[one for number, one in pointers.items() if number in function.writes],
        )


class FakeGraph:
    """See `Graph`."""

    def __init__(self, cuda: FakeCuda, recorded: Sequence[Callable[[FakeStream], None]]) -> None:
        self._cuda = cuda
        self._recorded = recorded
        self._last: Clock = {}
        self._freed = False
        cuda.objects.append("a graph")

    def launch(self, stream: Stream) -> None:
        self._cuda.check_thread()
        self._cuda.refuse_while_recording("a launch of a graph")
        if self._freed:
            raise RuleBroken("a graph is launched after it was freed")
        assert isinstance(stream, FakeStream)
        self._cuda.graph_launches += 1
        for issue in self._recorded:
            issue(stream)
        self._last = stream.position()

    def free(self) -> None:
        self._cuda.check_thread()
        if not self._cuda.is_done(self._last):
            raise RuleBroken("a graph is freed while it runs")
        if not self._freed:
            self._cuda.objects.remove("a graph")
        self._freed = True
