"""Bundles as zips and folders: damage to their members, to what the zip says of them, and to its bytes."""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.fuzz.documents import damaged_document, hostile_yaml
from tests.fuzz.mutation import damaged_bytes
from vidseg.runtime.bundle import MANIFEST, sha256_of

ODD_NAMES = (
    "../x", "/etc/passwd", "a/../b", ".hidden", "a\\b", "a//b", "a/", "ü", "a\nb", "a\x1b[2J", "A" * 300, "con", "a:b",
    "samples", "samples/0.png/x", "manifest.yaml/x", "\u202eb", "M" * 60_000, "x" * 190, " ", "-rf", "a b", "%2e%2e",
)  # fmt: skip

Files = dict[str, bytes]


def damaged_files(rng: random.Random, files: Mapping[str, bytes], *, folder: bool = False) -> Files:
    """The files of a bundle, some of them damaged; most often with checksums that are right."""
    found = dict(files)
    if rng.random() < 0.7:
        name = rng.choice([name for name in found if name != MANIFEST])
        found[name] = _damaged_member(rng, found[name])
    document = _with_checksums(yaml.safe_load(found[MANIFEST]), found)
    if rng.random() < 0.4:
        document = damaged_document(rng, document)
    found[MANIFEST] = yaml.safe_dump(document, sort_keys=False, allow_unicode=True).encode("utf-8", "surrogatepass")
    if rng.random() < 0.1:
        found[MANIFEST] = hostile_yaml(rng, document)
    if rng.random() < 0.15:
        found.pop(rng.choice(list(found)))
    if rng.random() < 0.15:
        found[rng.choice(ODD_NAMES if not folder else ("x", ".x", "samples/ü", "a\nb", "b\x1b[2J", "\udcff"))] = b"x"
    return found


def _with_checksums(document: dict[str, Any], files: Files) -> dict[str, Any]:
    checksums = {name: sha256_of(content) for name, content in files.items() if name != MANIFEST}
    return {**document, "members": checksums}


def _damaged_member(rng: random.Random, content: bytes) -> bytes:
    if content.startswith(b"\x89PNG") and rng.random() < 0.7:
        return _damaged_png(rng, content)
    return rng.choice((b"", b"x", damaged_bytes(rng, content), content[: rng.randint(0, len(content))]))


def _damaged_png(rng: random.Random, content: bytes) -> bytes:
    """A PNG whose chunks say something else, with a checksum that is right."""
    chunks, place = [], 8
    while place + 12 <= len(content):
        (size,) = struct.unpack(">I", content[place : place + 4])
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + size]))
        place += 12 + size
    number = rng.randrange(len(chunks))
    kind, data = chunks[number]
    if kind == b"IHDR" or rng.random() < 0.3:
        kind, data = chunks[number := 0]
        side = struct.pack(">I", rng.choice((0, 1, 3, 16, 5000, 16_384, 30_000, 2**31 - 1, 2**32 - 1)))
        at = rng.choice((0, 4))
        data = rng.choice((data[:at] + side + data[at + 4 :], side + side + data[8:], damaged_bytes(rng, data)))
    else:
        data = damaged_bytes(rng, data)
    chunks[number] = (kind, data)
    return content[:8] + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def hostile_zip(rng: random.Random, files: Mapping[str, bytes]) -> bytes:
    """A zip of files whose directory may lie."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            _write(rng, archive, name, content)
        if rng.random() < 0.1:
            archive.comment = rng.randbytes(rng.choice((1, 60_000)))
        if rng.random() < 0.03:
            _write(rng, archive, "bomb", bytes(8 << 20))
        if rng.random() < 0.03:
            for number in range(110):
                archive.writestr(f"f{number}", b"")
    content = stream.getvalue()
    return damaged_bytes(rng, content, (b"PK\x05\x06" + bytes(18), b"")) if rng.random() < 0.4 else content


def _write(rng: random.Random, archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    info = zipfile.ZipInfo(name.encode("utf-8", "replace").decode(), (1980, 1, 1, 0, 0, 0))
    info.compress_type = rng.choice((0, 8, 8, 8, 12, 14))
    info.create_system = 3
    info.external_attr = 0o100644 << 16
    if rng.random() < 0.03:
        info.external_attr = rng.choice((0o120777, 0o040755, 0o020666, 0o010644, 0o177777)) << 16
    archive.writestr(info, content)
    if rng.random() < 0.03:
        info.flag_bits |= rng.choice((1, 8, 0x40, 0x800, 0x2000))
    if rng.random() < 0.03:
        info.compress_type = rng.choice((0, 1, 6, 9, 95, 99))
    if rng.random() < 0.03:
        info.file_size = rng.choice((0, 1, 2**31, 2**32 - 2, len(content) * 2))
    if rng.random() < 0.03:
        info.compress_size = rng.choice((0, 1, 2**31))
    if rng.random() < 0.03:
        info.header_offset = rng.choice((0, 1, 2**31))
    if rng.random() < 0.03:
        info.CRC ^= 1
    if rng.random() < 0.03:
        info.orig_filename = info.filename = rng.choice(ODD_NAMES[:12])


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """The files below a folder, those whose names cannot be in one left out."""
    for name, content in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
