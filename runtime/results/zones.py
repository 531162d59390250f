"""Parts of a picture that a user has drawn, and what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vidseg.runtime.frame import Segmentation
from vidseg.runtime.manifest import ClassSpec
from vidseg.runtime.polygons import Polygon, check_polygon, pixels_in
from vidseg.runtime.results.regions import named_shares


@dataclass(frozen=True, slots=True)
class Zone:
    """A polygon on the pictures of a source.

    Attributes:
        name: for people and programs.
        polygon: see `Polygon`.

    Raises:
        ConfigurationError: it is no polygon.
    """

    name: str
    polygon: Polygon

    def __post_init__(self) -> None:
        check_polygon(self.polygon, f"zone {self.name!r}")

    def shares(self, segmentation: Segmentation, classes: Sequence[ClassSpec]) -> dict[str, float]:
        """Share of each class of the zone's pixels, by name; what is unknown is missing from the sum."""
        return named_shares(segmentation.class_map[pixels_in(self.polygon, segmentation)], classes)
