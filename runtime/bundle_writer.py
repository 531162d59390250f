"""Writing a bundle: all of it or nothing, and the same bytes for the same content."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from vidseg.runtime.bundle import MANIFEST, open_bundle, sha256_of
from vidseg.runtime.errors import ConfigurationError
from vidseg.runtime.manifest import Manifest, manifest_text

SUFFIX = ".vidseg"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold


def write_bundle(
    path: Path | str, manifest: Manifest, members: Mapping[str, bytes], *, overwrite: bool = False
) -> None:
    """Write a bundle: a zip where the name ends in `.vidseg`, else a folder.

    It is made under a temporary name beside its place, read back and verified there, and moved when it is whole: a
    failure leaves neither a new file behind nor an old one harmed.

    Args:
        path: where to.
        manifest: its `members` are filled in here.
        members: content by path in the bundle; among them every file that the manifest names.
        overwrite: replace what is there; a folder only where it is a bundle.

    Raises:
        ConfigurationError: the place is taken, or cannot be written.
        BundleError: the parts make no bundle.
    """
    path = Path(path)
    check_place(path, overwrite=overwrite)
    checksums = {name: sha256_of(members[name]) for name in sorted(members)}
    text = manifest_text(msgspec.structs.replace(manifest, members=checksums)).encode()
    files = {MANIFEST: text, **{name: members[name] for name in sorted(members)}}
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
            made = Path(scratch) / path.name
            if path.suffix == SUFFIX:
                _write_zip(made, files)
            else:
                _write_folder(made, files)
            open_bundle(made)
            _move(made, path, Path(scratch) / "replaced")
            _sync(path.parent)
    except OSError as error:
        raise ConfigurationError(
            f"{path}: the bundle cannot be written",
            error.strerror or str(error),
            "Free some space, or name another place.",
        ) from error


def check_place(path: Path, *, overwrite: bool) -> None:
    """Refuse a place that is taken or has no folder, before any work is done for it.

    Raises:
        ConfigurationError: as `write_bundle` does.
    """
    if not path.parent.is_dir():
        raise ConfigurationError(f"{path}: the folder is missing", f"no {path.parent}", "Make it first.")
    try:  # permissions do not tell: of some file systems nobody may write
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent):
            pass
    except OSError as error:
        do = "Name another place."
        raise ConfigurationError(f"{path}: nothing can be written in its folder", error.strerror or "", do) from error
    if not path.exists():
        return
    if not overwrite:
        raise ConfigurationError(f"{path}: something is there", "a file or folder", "Use --overwrite to replace it.")
    if path.is_dir() and not (path / MANIFEST).is_file():
        raise ConfigurationError(f"{path}: only a bundle is replaced", "another folder", "Name another place.")


def _write_zip(path: Path, files: Mapping[str, bytes]) -> None:
    with path.open("wb") as stream:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
            for name, content in files.items():
                info = zipfile.ZipInfo(name, _EPOCH)
                info.compress_type = zipfile.ZIP_STORED if name.endswith(".png") else zipfile.ZIP_DEFLATED
                info.create_system = 3  # Unix, wherever it is made
                info.external_attr = 0o100644 << 16
                archive.writestr(info, content)
        stream.flush()
        os.fsync(stream.fileno())


def _write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())


def _move(made: Path, path: Path, aside: Path) -> None:
    if path.is_dir():  # a folder cannot be replaced in one step: the old one is put aside, and back if that fails
        path.rename(aside)
        try:
            made.rename(path)
        except BaseException:
            aside.rename(path)
            raise
        shutil.rmtree(aside)
    else:
        made.replace(path)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
