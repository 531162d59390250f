"""Sources: where frames come from. A source has no thread of its own; the pipeline reads it in one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # a process that decodes imports this package, and has to stay small
    import threading

    from vidseg.runtime.clock import Clock
    from vidseg.runtime.frame import Frame


class Source(Protocol):
    """Something that gives frames, one `read()` at a time. Opened, read and closed by one thread."""

    @property
    def name(self) -> str:
        """Unique within a pipeline, without credentials."""

    @property
    def live(self) -> bool:
        """True where frames come whether or not they are read; False where the source can wait."""

    def open(self, clock: Clock, stop: threading.Event) -> None:
        """Get ready to read. Every wait in `read()` ends early once `stop` is set.

        Raises:
            SourceOpenError: it is missing, is not what it should be, or has no frame.
        """

    def read(self) -> Frame | None:
        """The next frame; None at the end, or when `stop` was set.

        Raises:
            FrameError: this frame is bad; the next call goes on with the one behind it.
            SourceLostError: no further frame will come, and that is a fault.
        """

    def close(self) -> None:
        """Let go of file and device. Idempotent; may be called without `open()`."""
