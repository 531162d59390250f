"""The classes of the rendered street."""

from __future__ import annotations

from vidseg.runtime.manifest import ClassSpec

SKY, ROAD, PAVEMENT, BUILDING, TREE, CAR, PERSON = range(7)

STREET_CLASSES = (
    ClassSpec(name="sky", color_rgb=(90, 170, 235)),
    ClassSpec(name="road", color_rgb=(128, 80, 140)),
    ClassSpec(name="pavement", color_rgb=(240, 90, 200)),
    ClassSpec(name="building", color_rgb=(235, 150, 70)),
    ClassSpec(name="tree", color_rgb=(90, 190, 60)),
    ClassSpec(name="car", color_rgb=(40, 60, 220)),
    ClassSpec(name="person", color_rgb=(230, 30, 50)),
)
"""Names and colours by class id."""
