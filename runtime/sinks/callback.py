"""`CallbackSink`: results handed to a function of the user's."""

from __future__ import annotations

from collections.abc import Callable

from vidseg.runtime.frame import Image, Segmentation, SourceStatus
from vidseg.runtime.sinks import Sink


class CallbackSink(Sink):
    """Calls a function with each result, one after the other, in a thread of the pipeline's.

    Of a live source the newest result only waits while the function runs. What it raises detaches the sink; it may
    raise `StopRequested` to end the run.

    Args:
        function: called with the `Segmentation`; what it returns is ignored.
        on_status: called with a `SourceStatus` while a live source gives nothing.
        name: unique within a pipeline.
    """

    def __init__(
        self,
        function: Callable[[Segmentation], object],
        name: str = "callback",
        on_status: Callable[[SourceStatus], object] | None = None,
    ) -> None:
        self._function = function
        self._on_status = on_status
        self._name = name

    @property
    def name(self) -> str:
        """As it was given."""
        return self._name

    @property
    def queue_size(self) -> int:
        """1: what waits longer is out of date."""
        return 1

    def write(self, segmentation: Segmentation, picture: Image | None) -> None:  # noqa: ARG002 - not wanted
        """Call the function."""
        self._function(segmentation)

    def notify(self, status: SourceStatus) -> None:
        """Call `on_status`."""
        if self._on_status is not None:
            self._on_status(status)
