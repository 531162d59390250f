"""Reading the files of a bundle from a folder or a zip that nobody vouches for."""

from __future__ import annotations

import os
import re
import stat
import zipfile
import zlib
from pathlib import Path

from vidseg.runtime.errors import BundleError

MAX_MEMBERS = 100
MAX_MEMBER_BYTES = 2 << 30
MAX_BYTES = 4 << 30
"""Far above any real bundle, and low enough that a crafted one cannot fill memory and disk unnoticed."""

_CHUNK_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_COPY_AGAIN = "Copy or export the bundle again."


def read_folder(path: Path) -> dict[str, bytes]:
    """The content of every file below a folder, by its path with forward slashes.

    Raises:
        BundleError: a link, a special file, an unusual name, too much of anything, or an unreadable file.
    """
    members: dict[str, bytes] = {}
    total = 0
    try:
        for found in path.rglob("*"):
            status = found.lstat()
            if stat.S_ISDIR(status.st_mode):
                continue
            name = found.relative_to(path).as_posix()
            if not stat.S_ISREG(status.st_mode):
                raise BundleError(f"{path}: {name} is no plain file", "a link or device", "Copy the file itself.")
            _check_name(path, name)
            total += status.st_size
            _check_amount(path, len(members) + 1, total)
            members[name] = found.read_bytes()
    except OSError as error:
        unreadable = error.filename or path
        raise BundleError(f"{path}: {unreadable} cannot be read", os.strerror(error.errno or 0)) from error
    return members


def read_zip(path: Path) -> dict[str, bytes]:
    """The content of every member of a zip, by its name.

    Sizes are counted as bytes come out, because the headers may lie.

    Raises:
        BundleError: no zip, damaged, encrypted, with links, unsafe or repeated names, or too much of anything.
    """
    members: dict[str, bytes] = {}
    total = 0
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            _check_amount(path, len(infos), 0)
            for info in infos:
                _check_info(path, info, members)
                members[info.filename] = content = _read_member(path, archive, info)
                total += len(content)
                _check_amount(path, len(members), total)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, OverflowError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(
            f"{path}: not a bundle, or a damaged one", f"{error!s:.200}" or "no zip", _COPY_AGAIN
        ) from error
    except OSError as error:
        reason = os.strerror(error.errno or 0) or str(error)
        raise BundleError(f"{path}: cannot be read", reason, _COPY_AGAIN) from error
    return members


def _read_member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    content = bytearray()
    with archive.open(info) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            content += chunk
            if len(content) > min(info.file_size, MAX_MEMBER_BYTES):
                raise BundleError(f"{path}: {info.filename} is too large", f"over {len(content)} bytes", _COPY_AGAIN)
    return bytes(content)


def _check_info(path: Path, info: zipfile.ZipInfo, members: dict[str, bytes]) -> None:
    _check_name(path, info.filename)
    mode = info.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise BundleError(f"{path}: {info.filename} is no plain file", "a link or device", _COPY_AGAIN)
    if info.flag_bits & 0x1:
        raise BundleError(f"{path}: {info.filename} is encrypted", "a password", _COPY_AGAIN)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # those of others may ask for gigabytes
        raise BundleError(f"{path}: {info.filename} is packed in another way", f"{info.compress_type}", _COPY_AGAIN)
    if info.filename in members:
        raise BundleError(f"{path}: {info.filename} is there twice", "two members of one name", _COPY_AGAIN)
    if info.file_size > MAX_MEMBER_BYTES:
        raise BundleError(f"{path}: {info.filename} is too large", f"{info.file_size} bytes", _COPY_AGAIN)


def _check_name(path: Path, name: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > 200:
        raise BundleError(f"{path}: a file has an unsafe name", repr(name[:80]), _COPY_AGAIN)


def _check_amount(path: Path, count: int, total: int) -> None:
    if count > MAX_MEMBERS:
        raise BundleError(f"{path}: too many files", f"over {MAX_MEMBERS}", _COPY_AGAIN)
    if total > MAX_BYTES:
        raise BundleError(f"{path}: too large", f"over {MAX_BYTES >> 30} GiB", _COPY_AGAIN)
