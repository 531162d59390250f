"""A quota that is exceeded fills a disk that nobody looks at; one that deletes too much loses evidence."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidseg.runtime.sinks.recording.archive import Archive

QUOTA = 1000
SOURCES = ("a", "b", "c")

Steps = list[tuple[str, int, int]]
steps = st.lists(st.tuples(st.sampled_from(SOURCES), st.integers(0, 300), st.integers(0, 2**70)), max_size=60)


def total(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*/*.mp4"))


def numbers(folder: Path) -> list[int]:
    return sorted(int(path.name[:8]) for path in folder.glob("*/*.mp4"))


@settings(max_examples=30)
@given(steps, st.integers(0, 60))
def test_the_sum_stays_below_the_quota_and_the_oldest_go_first(steps: Steps, restart_at: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "rec"
        archive = Archive(folder, QUOTA, 0)
        archive.open()
        sizes: list[int] = []
        for step, (source, size, wall_ns) in enumerate(steps):
            if step == restart_at:
                archive.close()
                archive = Archive(folder, QUOTA, 0)
                archive.open()
            number, path = archive.begin(source, wall_ns)
            assert number == step + 1 or not sizes
            assert not path.exists()
            path.touch()
            for part in range(0, size, 100):  # it grows while it is written
                archive.grow(number, min(part + 100, size))
                path.write_bytes(bytes(min(part + 100, size)))
                assert total(folder) <= QUOTA
                assert archive.size_bytes == total(folder)
            archive.end(number)
            sizes.append(size)
            left = numbers(folder)
            assert left == list(range(step + 2 - len(left), step + 2))  # the newest, without a gap
            before_oldest = step - len(left)
            if before_oldest >= 0:  # it went because it did not fit
                assert sum(sizes[before_oldest:]) > QUOTA
        archive.close()


def test_what_is_being_written_is_never_deleted(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "rec", QUOTA, 0)
    archive.open()
    first, path = archive.begin("a", 0)
    archive.grow(first, 600)
    path.write_bytes(bytes(600))
    second, _ = archive.begin("b", 0)
    with pytest.raises(OSError, match="the quota is less than what is being written"):
        archive.grow(second, 600)
    assert path.exists()
    archive.end(first)
    archive.grow(second, 600)
    assert not path.exists()
    archive.close()


def test_only_our_own_files_are_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "rec/a"
    folder.mkdir(parents=True)
    others = [folder / name for name in ("mine.mp4", "events.jsonl", "00000001.mp4", "x00000001_20260102T030405Z.mp4")]
    for other in others:
        other.write_bytes(bytes(5000))
    (folder / "00000001_20260102T030405Z.mp4").symlink_to(others[0])
    (folder / "00000002_20260102T030405Z.mp4").mkdir()
    archive = Archive(tmp_path / "rec", QUOTA, 0)
    archive.open()
    assert archive.size_bytes == 0
    number, _ = archive.begin("a", 0)
    archive.grow(number, 900)
    archive.close()
    assert all(other.stat().st_size == 5000 for other in others)


def test_files_that_a_person_deleted_leave_room(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "rec", QUOTA, 0)
    archive.open()
    paths = []
    for _ in range(3):
        number, path = archive.begin("a", 0)
        archive.grow(number, 300)
        path.write_bytes(bytes(300))
        archive.end(number)
        paths.append(path)
    paths[1].unlink()
    number, _ = archive.begin("a", 0)
    archive.grow(number, 300)
    assert paths[0].exists()
    archive.close()


def test_the_reserve_is_seen_before_anything_is_written(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "rec", None, 1 << 60)
    with pytest.raises(OSError, match="MiB are free"):
        archive.open()
    archive.close()
