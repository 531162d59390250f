"""Sinks: where results go. A sink has no thread of its own; the pipeline writes to it from one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from vidseg.runtime.frame import Image, Segmentation, SourceStatus

if TYPE_CHECKING:
    from vidseg.runtime.web.controlled import Controlled


@runtime_checkable
class Sink(Protocol):
    """Something that takes results. Written to and closed by one thread.

    A sink opens its file or device at the first `write()`: a run that fails before leaves nothing behind. Classes that
    inherit from it need `name` and `write` only.
    """

    @property
    def name(self) -> str:
        """Unique within a pipeline, for statistics and messages; without credentials."""

    @property
    def wants_picture(self) -> bool:
        """True where `write` needs the drawn picture. Asked for each result; where it changes, one may come without."""
        return False

    @property
    def queue_size(self) -> int:
        """How many results may wait before a live one pushes an older one out; a recorded one waits.

        Of several live sources it is the one with most results here that loses its oldest; the newest of each may wait,
        also where that are more.
        """
        return 4

    @property
    def main_thread(self) -> bool:
        """True where `write` and `close` have to run in the process's main thread (a window)."""
        return False

    def write(self, segmentation: Segmentation, picture: Image | None) -> None:
        """Deliver one result. `picture` is the drawn frame, (H, W, 3) uint8 BGR read-only, where it is wanted.

        Raises:
            SinkError: it cannot be delivered; the pipeline detaches the sink and goes on.
            StopRequested: a person closed the window; the pipeline ends as it would at the end of its sources.
        """

    def notify(self, status: SourceStatus) -> None:  # noqa: ARG002 - for sinks that care
        """Hear of a live source that gives nothing, in the thread that writes, where no result waits.

        Raises: as `write`.
        """
        return

    def close(self) -> None:
        """Finish the file. Idempotent; may be called without any `write()`.

        Raises:
            SinkError: what was written cannot be finished.
        """
        return


@runtime_checkable
class MainThreadSink(Sink, Protocol):
    """A sink whose `main_thread` is True, such as a window."""

    def pump(self) -> None:
        """Handle waiting events; called from the main thread at least every 20 ms while no result comes.

        Raises:
            StopRequested: see `write`.
        """


@runtime_checkable
class ControllingSink(Sink, Protocol):
    """A sink that shows the state of the pipeline and acts on it, such as a page."""

    def attach(self, controlled: Controlled) -> None:
        """Take what is controlled, before the first `write`."""


class StopRequested(Exception):  # noqa: N818 - it is no error: a person asked for the end
    """Raised by `Sink.write` when a person asked for the end."""
