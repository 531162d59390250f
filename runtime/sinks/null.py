"""`NullSink`: results that nobody wants, counted all the same."""

from __future__ import annotations

from vidseg.runtime.frame import Image, Segmentation
from vidseg.runtime.sinks import Sink


class NullSink(Sink):
    """Takes every result and does nothing with it."""

    @property
    def name(self) -> str:
        """`null://`."""
        return "null://"

    def write(self, segmentation: Segmentation, picture: Image | None) -> None:
        """Nothing."""
