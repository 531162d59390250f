"""What others ask of a source's thread: to pause, to go on, to end."""

from __future__ import annotations

import threading


class SourceControl:
    """Asked from any thread, heeded by the one that reads the source.

    Args:
        closes: a pause halts reading, so that the source can be closed meanwhile.

    Attributes:
        halt: set where reading has to end now, for a pause or for good; a new one for each time the source is opened.
    """

    def __init__(self, *, closes: bool) -> None:
        self._closes = closes
        self._changed = threading.Condition()
        self._stopped = False
        self._paused = False
        self.halt = threading.Event()

    @property
    def stopped(self) -> bool:
        """True once it has to end."""
        return self._stopped

    @property
    def paused(self) -> bool:
        """True while it has to wait."""
        return self._paused

    def stop(self) -> None:
        """End it for good."""
        with self._changed:
            self._stopped = True
            self.halt.set()
            self._changed.notify_all()

    def pause(self) -> None:
        """Let it wait until `resume`."""
        with self._changed:
            self._paused = True
            if self._closes:
                self.halt.set()

    def resume(self) -> None:
        """Let it go on."""
        with self._changed:
            self._paused = False
            self._changed.notify_all()

    def wait_while_paused(self) -> None:
        """Wait for the end of a pause, or of all."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or not self._paused)

    def wait_until_wanted(self) -> bool:
        """Wait while it is paused, and make a new `halt`; False where it has to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or not self._paused)
            if not self._stopped:
                self.halt = threading.Event()
            return not self._stopped
