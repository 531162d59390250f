"""Bundles: a folder, or the same zipped as `.vidseg`, whose every file is verified when it is opened.

A bundle may come from anywhere, so nothing in it is believed before it was checked: names, numbers and sizes of
members, checksums, the manifest's schema, and the pictures.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from vidseg.runtime.archive import read_folder, read_zip
from vidseg.runtime.errors import BundleError
from vidseg.runtime.frame import UNKNOWN, ClassMap, Image
from vidseg.runtime.manifest import Manifest, SampleSpec, VariantSpec, parse_manifest

MANIFEST = "manifest.yaml"


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A verified bundle, held in memory.

    Attributes:
        path: where it was read.
        manifest: what is in it.
        members: the content of every file but the manifest, by its path in the bundle.
    """

    path: Path
    manifest: Manifest
    members: Mapping[str, bytes]

    def variant(self, name: str) -> VariantSpec:
        """A variant by name.

        Raises:
            BundleError: there is none of that name.
        """
        for variant in self.manifest.variants:
            if variant.name == name:
                return variant
        names = ", ".join(variant.name for variant in self.manifest.variants)
        raise BundleError(f"{self.path}: no variant is named {name!r:.100}", names[:300], "Name one of these.")

    def samples(self) -> Iterator[tuple[Image, ClassMap]]:
        """The verification frames: (h, w, 3) uint8 BGR at the input's size, and (h', w') uint8 class ids.

        Raises:
            BundleError: a picture is damaged or does not fit.
        """
        for sample in self.manifest.samples:
            yield self._sample(sample)

    def _sample(self, sample: SampleSpec) -> tuple[Image, ClassMap]:
        image = self._picture(sample.image, cv2.IMREAD_COLOR, self.manifest.input.size_wh)
        class_map = self._picture(sample.class_map, cv2.IMREAD_GRAYSCALE, self.manifest.output.size_wh)
        unknown = np.setdiff1d(np.unique(class_map), [*range(len(self.manifest.output.classes)), UNKNOWN])
        if unknown.size:
            raise BundleError(f"{self.path}: {sample.class_map} has ids of no class", f"{unknown[:5]}", _AGAIN)
        return image, class_map

    def _picture(self, member: str, mode: int, size_wh: tuple[int, int]) -> Image:
        content = self.members[member]
        said_wh = _png_size_wh(content)
        if said_wh not in (None, size_wh):  # before anything is allocated for it
            raise BundleError(f"{self.path}: {member} has the wrong size", f"{said_wh}", _AGAIN)
        try:
            picture = cv2.imdecode(np.frombuffer(content, np.uint8), mode) if said_wh else None
        except cv2.error:
            picture = None
        if picture is None or picture.shape[:2] != size_wh[::-1]:
            raise BundleError(f"{self.path}: {member} is no picture", f"{len(content)} bytes", _AGAIN)
        return picture.astype(np.uint8, copy=False)


def _png_size_wh(content: bytes) -> tuple[int, int] | None:
    """Width and height that a PNG says of itself (ISO/IEC 15948, 11.2.2); None where it is none."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n") or content[12:16] != b"IHDR":
        return None
    width, height = struct.unpack(">II", content[16:24].ljust(8, b"\x00"))
    return width, height


_AGAIN = "Export the bundle again."


def open_bundle(path: Path | str) -> Bundle:
    """Read a bundle and verify every member of it.

    Raises:
        BundleError: it is missing, unsafe, damaged, or no bundle.
    """
    path = Path(path)
    if path.is_dir():
        members = read_folder(path) if (path / MANIFEST).exists() else {}  # it may be any folder, even the root
    elif path.is_file():
        members = read_zip(path)
    else:
        raise BundleError(f"{path}: there is no such bundle", "nothing", "Make one with `vidseg export`.")
    text = members.pop(MANIFEST, None)
    if text is None:
        raise BundleError(f"{path}: not a bundle", f"no {MANIFEST}", "Make one with `vidseg export`.")
    manifest = parse_manifest(text, str(path))
    _verify(path, manifest, members)
    return Bundle(path, manifest, members)


def sha256_of(content: bytes) -> str:
    """The checksum as a manifest holds it: 64 lower-case hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def _verify(path: Path, manifest: Manifest, members: Mapping[str, bytes]) -> None:
    missing = sorted(manifest.members.keys() - members.keys())
    if missing:
        raise BundleError(f"{path}: a file is missing", missing[0], "Copy the bundle again.")
    extra = sorted(members.keys() - manifest.members.keys())
    if extra:
        raise BundleError(f"{path}: a file is not of the bundle", extra[0], "Remove it, or export the bundle again.")
    for member, wanted in manifest.members.items():
        if (found := sha256_of(members[member])) != wanted:
            raise BundleError(
                f"{path}: {member} is damaged", f"sha256 {found[:12]}… for {wanted[:12]}…", "Copy the bundle again."
            )
