"""What a sink may control: the pictures' style, and the sources."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vidseg.runtime.frame import Image, Segmentation
from vidseg.runtime.manifest import ClassSpec
from vidseg.runtime.overlay import Overlay, OverlayStyle
from vidseg.runtime.pipeline.pipeline import Pipeline
from vidseg.runtime.pipeline.statistics import Statistics
from vidseg.runtime.pipeline.status import hud_lines
from vidseg.runtime.sinks import Sink

HUD_INTERVAL_NS = 250_000_000


class PictureDrawer:
    """Draws results in a style that can be changed, with a HUD whose numbers stand still long enough to be read.

    Args:
        classes: of the model.
        style: to begin with, in which an engine may have drawn results too.
        hud: show rate, age and drops.

    Attributes:
        style: of the next pictures.
    """

    def __init__(self, classes: Sequence[ClassSpec], style: OverlayStyle, *, hud: bool) -> None:
        self._classes = classes
        self._first = self.style = style
        self._overlay = Overlay(classes, style)
        self._hud = hud
        self._lines: tuple[str, ...] = ()
        self._due_ns = 0

    def set_style(self, style: OverlayStyle) -> None:
        """Draw like this from now on. From any thread.

        Raises:
            UsageError: a style that is not possible.
        """
        self._overlay, self.style = Overlay(self._classes, style), style

    def draw(self, segmentation: Segmentation, statistics: Callable[[], Statistics]) -> Image:
        """A picture of a result, (H, W, 3) uint8 BGR."""
        now_ns = segmentation.frame.captured_ns
        if self._hud and now_ns >= self._due_ns:
            self._lines = hud_lines(statistics())
            self._due_ns = now_ns + HUD_INTERVAL_NS
        blended = segmentation.blended if self.style == self._first else None
        return self._overlay.draw(segmentation, self._lines, blended)


class PipelineControls:
    """A pipeline as a page sees it; see `Controlled`."""

    def __init__(self, pipeline: Pipeline, drawer: PictureDrawer, sinks: Sequence[Sink]) -> None:
        self._pipeline = pipeline
        self._drawer = drawer
        self._sinks = sinks

    def sinks(self) -> Sequence[Sink]:
        """All of the pipeline's sinks."""
        return self._sinks

    def statistics(self) -> Statistics:
        """See `Pipeline.statistics`."""
        return self._pipeline.statistics()

    def source_names(self) -> Sequence[str]:
        """See `SourceSet`."""
        return self._pipeline.sources.names

    def pause(self, name: str) -> None:
        """See `SourceSet`."""
        self._pipeline.sources.pause(name)

    def resume(self, name: str) -> None:
        """See `SourceSet`."""
        self._pipeline.sources.resume(name)

    def paused(self) -> frozenset[str]:
        """See `SourceSet`."""
        return self._pipeline.sources.paused

    def overlay(self) -> OverlayStyle:
        """The style of pictures."""
        return self._drawer.style

    def set_overlay(self, style: OverlayStyle) -> None:
        """See `PictureDrawer.set_style`."""
        self._drawer.set_style(style)
