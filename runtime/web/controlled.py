"""`Controlled`: what the page shows the state of, and what its buttons act on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from vidseg.runtime.overlay import OverlayStyle
    from vidseg.runtime.pipeline.statistics import Statistics
    from vidseg.runtime.sinks import Sink


class Controlled(Protocol):
    """A pipeline, as the page sees it. Every method is called from the page's thread and returns at once."""

    def statistics(self) -> Statistics:
        """Rates, ages, stage times and the books at this instant."""

    def sinks(self) -> Sequence[Sink]:
        """Where results go, sinks that have failed included."""

    def source_names(self) -> Sequence[str]:
        """Names of the sources that there are now, in the order in which they are shown."""

    def pause(self, name: str) -> None:
        """Take no more frames of a source until `resume`. Idempotent.

        Raises:
            VidsegError: it cannot be paused; a person is told why.
        """

    def resume(self, name: str) -> None:
        """Undo `pause`. Idempotent.

        Raises:
            VidsegError: as `pause`.
        """

    def paused(self) -> frozenset[str]:
        """Names of the sources that are paused."""

    def overlay(self) -> OverlayStyle:
        """What pictures look like now."""

    def set_overlay(self, style: OverlayStyle) -> None:
        """What the next pictures look like.

        Raises:
            VidsegError: a style that is not possible.
        """
