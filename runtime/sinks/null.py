"""`NullSink`: results that nobody wants, counted all the same."""

from __future__ import annotations

from vidseg.runtime.frame import Image, Segmentation


class NullSink:
    """Takes every result and does nothing with it."""

    @property
    def name(self) -> str:
        """`null://`."""
        return "null://"

    @property
    def wants_picture(self) -> bool:
        """False."""
        return False

    @property
    def queue_size(self) -> int:
        """4: enough, as nothing is waited for."""
        return 4

    @property
    def main_thread(self) -> bool:
        """False."""
        return False

    def write(self, segmentation: Segmentation, picture: Image | None) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
