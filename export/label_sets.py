"""Names and colours of the classes of well-known datasets."""

from __future__ import annotations

from vidseg.runtime.manifest import ClassSpec
from vidseg.runtime.sources.street.classes import STREET_CLASSES

Color = tuple[int, int, int]  # red, green, blue, 0..255 each


def _classes(*classes: tuple[str, Color]) -> tuple[ClassSpec, ...]:
    return tuple(ClassSpec(name=name, color_rgb=color) for name, color in classes)


def voc_color(number: int) -> Color:
    """The colour of class `number` in PASCAL VOC's own pictures: three of its bits at a time, highest first.

    Source: `VOCdevkit/VOCcode/VOClabelcolormap.m`.
    """
    channels = [0, 0, 0]
    for shift in range(7, -1, -1):
        for channel in range(3):
            channels[channel] |= (number >> channel & 1) << shift
        number >>= 3
    red, green, blue = channels
    return red, green, blue


_VOC = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor"
)

# SegNet's eleven classes and their order (Badrinarayanan et al., 2015), colours of its tutorial.
_CAMVID = _classes(
    ("sky", (128, 128, 128)),
    ("building", (128, 0, 0)),
    ("pole", (192, 192, 128)),
    ("road", (128, 64, 128)),
    ("pavement", (60, 40, 222)),
    ("tree", (128, 128, 0)),
    ("sign", (192, 128, 128)),
    ("fence", (64, 64, 128)),
    ("car", (64, 0, 128)),
    ("pedestrian", (64, 64, 0)),
    ("bicyclist", (0, 128, 192)),
)

# Train ids 0..18 of cityscapesscripts/helpers/labels.py.
_CITYSCAPES = _classes(
    ("road", (128, 64, 128)),
    ("sidewalk", (244, 35, 232)),
    ("building", (70, 70, 70)),
    ("wall", (102, 102, 156)),
    ("fence", (190, 153, 153)),
    ("pole", (153, 153, 153)),
    ("traffic light", (250, 170, 30)),
    ("traffic sign", (220, 220, 0)),
    ("vegetation", (107, 142, 35)),
    ("terrain", (152, 251, 152)),
    ("sky", (70, 130, 180)),
    ("person", (220, 20, 60)),
    ("rider", (255, 0, 0)),
    ("car", (0, 0, 142)),
    ("truck", (0, 0, 70)),
    ("bus", (0, 60, 100)),
    ("train", (0, 80, 100)),
    ("motorcycle", (0, 0, 230)),
    ("bicycle", (119, 11, 32)),
)

LABEL_SETS: dict[str, tuple[ClassSpec, ...]] = {
    "camvid": _CAMVID,
    "camvid12": (*_CAMVID, *_classes(("void", (0, 0, 0)))),
    "cityscapes": _CITYSCAPES,
    "cityscapes20": (*_CITYSCAPES, *_classes(("background", (0, 0, 0)))),
    "portrait": _classes(("background", (0, 0, 0)), ("person", (220, 20, 60))),
    "street": STREET_CLASSES,
    "voc": _classes(*((name, voc_color(number)) for number, name in enumerate(_VOC.split()))),
}
"""By the name that `--labels` takes. Those with a number have the class that many trainings append."""
