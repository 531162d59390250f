"""`CallbackSink`: results handed to a function of the user's."""

from __future__ import annotations

from collections.abc import Callable

from vidseg.runtime.frame import Image, Segmentation


class CallbackSink:
    """Calls a function with each result, one after the other, in a thread of the pipeline's.

    Of a live source the newest result only waits while the function runs. What it raises detaches the sink; it may
    raise `StopRequested` to end the run.

    Args:
        function: called with the `Segmentation`; what it returns is ignored.
        name: unique within a pipeline.
    """

    def __init__(self, function: Callable[[Segmentation], object], name: str = "callback") -> None:
        self._function = function
        self._name = name

    @property
    def name(self) -> str:
        """As it was given."""
        return self._name

    @property
    def wants_picture(self) -> bool:
        """False: a function draws for itself, where it wants to, with an `Overlay`."""
        return False

    @property
    def queue_size(self) -> int:
        """1: what waits longer is out of date."""
        return 1

    @property
    def main_thread(self) -> bool:
        """False."""
        return False

    def write(self, segmentation: Segmentation, picture: Image | None) -> None:  # noqa: ARG002 - see wants_picture
        """Call the function."""
        self._function(segmentation)

    def close(self) -> None:
        """Nothing to finish."""
