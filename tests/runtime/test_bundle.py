"""A damaged or hostile bundle must never be run, and a failed write must never harm what was there."""

from __future__ import annotations

import random
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.tiny_models import brightest_channel, tiny_parts, write_tiny_bundle
from vidseg.runtime import archive
from vidseg.runtime.bundle import open_bundle
from vidseg.runtime.bundle_writer import write_bundle
from vidseg.runtime.errors import BundleError, ConfigurationError
from vidseg.runtime.inspection import bundle_document, bundle_text

NAMES = ["tiny.vidseg", "tiny"]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    manifest, members = tiny_parts()
    write_bundle(tmp_path / name, manifest, members)
    bundle = open_bundle(tmp_path / name)
    assert bundle.members == members
    assert bundle.manifest.output == manifest.output
    ((image, class_map),) = bundle.samples()
    assert np.array_equal(class_map, brightest_channel(image))
    assert names_in(tmp_path) == [name]


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    first = write_tiny_bundle(tmp_path / "a.vidseg").read_bytes()
    assert write_tiny_bundle(tmp_path / "b.vidseg").read_bytes() == first


@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_byte_is_noticed(tmp_path: Path, name: str) -> None:
    path = write_tiny_bundle(tmp_path / name)
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    rng = random.Random(1)
    before = open_bundle(path)
    for number in range(300):
        file = rng.choice(files)
        content = bytearray(original := file.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        file.write_bytes(content)
        try:
            after = open_bundle(path)
        except BundleError as error:
            assert "\n" not in str(error)  # noqa: PT017 - a flip may also hit a byte that means nothing
        else:  # a time stamp in the zip, or a name or number in the manifest: the members are still the same
            assert after.members == before.members, number
        file.write_bytes(original)


def test_a_flipped_byte_in_the_model_names_it(tmp_path: Path) -> None:
    path = write_tiny_bundle(tmp_path / "tiny")
    content = bytearray((path / "model.onnx").read_bytes())
    content[50] ^= 1
    (path / "model.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.onnx is damaged: got sha256 .* Copy the bundle again"):
        open_bundle(path)


@pytest.mark.parametrize("keep", [0, 1, 20, 200, -1])
def test_a_truncated_zip_is_refused(tmp_path: Path, keep: int) -> None:
    path = write_tiny_bundle(tmp_path / "tiny.vidseg")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BundleError, match="damaged"):
        open_bundle(path)


def _zip_with(path: Path, *entries: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in entries:
            made.writestr(name, content)
    return path


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../b", ".hidden", "a\\b", "a//b", "a/", "a" * 300, "ü"])
def test_unsafe_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match="unsafe name"):
        open_bundle(_zip_with(tmp_path / "x.vidseg", (name, b"")))


def test_what_is_packed_in_another_way_is_refused(tmp_path: Path) -> None:
    """A header of LZMA may ask for gigabytes before the first byte comes out."""
    with zipfile.ZipFile(tmp_path / "x.vidseg", "w", zipfile.ZIP_LZMA) as made:
        made.writestr("a", b"1")
    with pytest.raises(BundleError, match="packed in another way"):
        open_bundle(tmp_path / "x.vidseg")


@pytest.mark.parametrize(
    "content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR" + b"\x00\x00\x7f\xff" * 2]
)
def test_a_sample_that_is_no_picture_is_refused(tmp_path: Path, content: bytes) -> None:
    manifest, members = tiny_parts()
    write_bundle(tmp_path / "x.vidseg", manifest, members | {"samples/0.png": content})
    with pytest.raises(BundleError, match=r"samples/0\.png"):
        list(open_bundle(tmp_path / "x.vidseg").samples())


def test_links_are_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(BundleError, match="no plain file"):
        open_bundle(_zip_with(tmp_path / "x.vidseg", (info, b"/etc/passwd")))
    folder = write_tiny_bundle(tmp_path / "tiny")
    (folder / "extra").symlink_to("/etc/passwd")
    with pytest.raises(BundleError, match="no plain file"):
        open_bundle(folder)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_repeated_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="twice"):
        open_bundle(_zip_with(tmp_path / "x.vidseg", ("a", b"1"), ("a", b"2")))


def test_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = _zip_with(tmp_path / "many.vidseg", *[(f"f{number}", b"") for number in range(archive.MAX_MEMBERS + 1)])
    with pytest.raises(BundleError, match="too many files"):
        open_bundle(many)
    monkeypatch.setattr(archive, "MAX_MEMBER_BYTES", 1 << 20)
    with pytest.raises(BundleError, match="too large"):
        open_bundle(_zip_with(tmp_path / "bomb.vidseg", ("bomb", bytes(8 << 20))))
    monkeypatch.setattr(archive, "MAX_BYTES", 1 << 20)
    with pytest.raises(BundleError, match="too large"):
        open_bundle(_zip_with(tmp_path / "sum.vidseg", *[(f"f{number}", bytes(300_000)) for number in range(4)]))


def test_files_beside_the_members_and_missing_ones_are_refused(tmp_path: Path) -> None:
    folder = write_tiny_bundle(tmp_path / "tiny")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match=r"not of the bundle: got notes\.txt"):
        open_bundle(folder)
    (folder / "notes.txt").unlink()
    (folder / "samples/0.png").unlink()
    with pytest.raises(BundleError, match=r"missing: got samples/0\.png"):
        open_bundle(folder)


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such bundle"):
        open_bundle(tmp_path / "nothing")
    with pytest.raises(BundleError, match="no manifest"):
        open_bundle(tmp_path)
    with pytest.raises(BundleError, match="no manifest"):
        open_bundle("/")
    (tmp_path / "text.vidseg").write_text("hello")
    with pytest.raises(BundleError, match="not a bundle"):
        open_bundle(tmp_path / "text.vidseg")


@pytest.mark.parametrize("name", NAMES)
def test_a_place_that_is_taken_is_kept_unless_asked(tmp_path: Path, name: str) -> None:
    path = write_tiny_bundle(tmp_path / name)
    manifest, members = tiny_parts((8, 8))
    with pytest.raises(ConfigurationError, match="--overwrite"):
        write_bundle(path, manifest, members)
    assert open_bundle(path).manifest.input.size_wh == (16, 12)
    write_bundle(path, manifest, members, overwrite=True)
    assert open_bundle(path).manifest.input.size_wh == (8, 8)
    assert names_in(tmp_path) == [name]


def test_a_folder_that_is_no_bundle_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/mine.txt").write_text("dear")
    with pytest.raises(ConfigurationError, match="only a bundle is replaced"):
        write_bundle(tmp_path / "photos", *tiny_parts(), overwrite=True)
    assert (tmp_path / "photos/mine.txt").read_text() == "dear"


@pytest.mark.parametrize("name", NAMES)
def test_a_failed_write_leaves_nothing(tmp_path: Path, name: str) -> None:
    manifest, members = tiny_parts()
    del members["model.onnx"]
    with pytest.raises(BundleError, match="without a checksum"):
        write_bundle(tmp_path / name, manifest, members)
    assert names_in(tmp_path) == []
    with pytest.raises(ConfigurationError, match="folder is missing"):
        write_bundle(tmp_path / "missing" / name, *tiny_parts())


def test_inspection_shows_what_matters(tmp_path: Path) -> None:
    bundle = open_bundle(write_tiny_bundle(tmp_path / "tiny.vidseg"))
    text = bundle_text(bundle)
    for part in ("16x12", "0 blue, 1 green, 2 red", "float: model.onnx, fp32", "tiny.onnx", "1 frames"):
        assert part in text
    assert bundle_document(bundle)["member_bytes"]["model.onnx"] == len(bundle.members["model.onnx"])
