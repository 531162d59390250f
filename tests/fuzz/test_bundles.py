"""Bundles that come from anywhere: what is taken is whole, what is not is refused in a line, none fills the memory."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest

from tests.fuzz.campaign import Campaign
from tests.fuzz.invariant import OBEYED, tried
from tests.fuzz.zips import Files, damaged_files, hostile_zip, write_folder
from tests.tiny_models import tiny_parts
from vidseg.runtime.bundle import Bundle, open_bundle
from vidseg.runtime.bundle_writer import write_bundle
from vidseg.runtime.inspection import bundle_text


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    write_bundle(folder, *tiny_parts())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _opened(path: Path) -> Bundle:
    bundle = open_bundle(path)
    for image, class_map in bundle.samples():
        assert image.ndim == 3
        assert class_map.ndim == 2
    return bundle


def _check(bundle: Bundle, place: Path) -> None:
    """It can be shown, and written again."""
    assert not OBEYED.search(bundle_text(bundle).replace("\n", ""))
    shutil.rmtree(place, ignore_errors=True)
    write_bundle(place, bundle.manifest, bundle.members)
    again = open_bundle(place)
    assert (again.manifest, again.members) == (bundle.manifest, bundle.members)


def test_zips(campaign: Campaign, files: Files, tmp_path: Path) -> None:
    path = tmp_path / "a.vidseg"
    for rng in campaign.cases("zip", 100):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile's, of two members of one name
            path.write_bytes(hostile_zip(rng, damaged_files(rng, files)))
        bundle = tried(lambda: _opened(path))
        if bundle is not None:
            _check(bundle, tmp_path / "again")


def test_folders(campaign: Campaign, files: Files, tmp_path: Path) -> None:
    for rng in campaign.cases("folder", 50):
        folder = tmp_path / "bundle"
        shutil.rmtree(folder, ignore_errors=True)
        write_folder(folder, damaged_files(rng, files, folder=True))
        bundle = tried(lambda folder=folder: _opened(folder))  # type: ignore[misc]
        if bundle is not None:
            _check(bundle, tmp_path / "again")
