"""Image files: which are read, and as what."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np

from vidseg.runtime.frame import Image

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"})


def image_from_bytes(data: bytes) -> Image | None:
    """An image file's content as (H, W, 3) uint8 BGR, upright; None where it is no image, damaged or cut off.

    EXIF orientation is honoured; of 16 bit samples the upper byte is taken; transparency is dropped.
    """
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:  # far too large
        image = None
    return None if image is None or _is_cut_off_jpeg(data) else cast(Image, image)


def _is_cut_off_jpeg(data: bytes) -> bool:
    """True for a JPEG whose first scan has no end (ISO 10918-1, annex B): the decoder paints gray what is missing."""
    place = 2 if data.startswith(b"\xff\xd8") else len(data)
    while place + 4 <= len(data) and data[place] == 0xFF:
        if data[place + 1] == 0xDA:  # start of scan; behind it FFD9 is the end of the image and nothing else
            return data.find(b"\xff\xd9", place) < 0
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return False
