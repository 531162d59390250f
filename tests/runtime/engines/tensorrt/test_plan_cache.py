"""A plan of another machine, or a damaged one, can end the process inside TensorRT: none is ever handed on."""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidseg.runtime.engines.tensorrt.plan_cache import PlanCache, PlanKey
from vidseg.runtime.engines.tensorrt.settings import BuildSettings
from vidseg.runtime.engines.tensorrt.sidecar import PlanFacts, read_sidecar

DEADLINE_S = 60
FACTS = PlanFacts(
    library="tensorrt",
    version="10.3.0",
    driver="560.35, CUDA 12.6",
    gpu="Orin",
    compute_capability=(8, 7),
    power_mode="MAXN",
)
KEY = PlanKey("0" * 64, BuildSettings(), "GPU-0", {"outputs": ["class_map"]})
PLAN = bytes(range(256)) * 40


class Builder:
    """Builds the plan it was given, and counts."""

    def __init__(self, plan: bytes = PLAN) -> None:
        self.plan = plan
        self.builds = 0

    def __call__(self) -> bytes:
        self.builds += 1
        return self.plan


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "plans"


@pytest.fixture
def cache(folder: Path) -> PlanCache:
    cache = PlanCache(folder)
    assert cache.plan(KEY, FACTS, Builder()) == PLAN
    return cache


def _file(folder: Path, ending: str) -> Path:
    (path,) = folder.glob(f"*.{ending}")
    return path


def _is_rebuilt(cache: PlanCache, facts: PlanFacts = FACTS, key: PlanKey = KEY) -> bool:
    """True where the kept plan was not taken; then the new one must be kept."""
    again = Builder(b"another plan")
    got = cache.plan(key, facts, again)
    assert got == (again.plan if again.builds else PLAN)
    assert cache.load(key, facts) == got
    return again.builds == 1


def test_a_plan_is_built_once_and_kept_for_the_user_alone(cache: PlanCache, folder: Path) -> None:
    assert not _is_rebuilt(cache)
    assert not _is_rebuilt(PlanCache(folder))
    assert all(path.stat().st_mode & 0o077 == 0 for path in [folder, *folder.iterdir()])


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"library": "tensorrt_rtx"}, "the library tensorrt; this machine has tensorrt_rtx"),
        ({"version": "10.7.0"}, "TensorRT 10.3.0; this machine has 10.7.0. It is built again now (less than a minute)"),
        ({"driver": "560.94, CUDA 12.6"}, "the driver 560.35, CUDA 12.6; this machine has 560.94, CUDA 12.6"),
        ({"gpu": "Orin Nano"}, "the GPU Orin; this machine has Orin Nano"),
        ({"compute_capability": (8, 9)}, "compute capability 8.7; this machine has 8.9"),
        ({"power_mode": ""}, "power mode MAXN; this machine has none"),
    ],
)
def test_a_field_that_changed_is_named_and_the_plan_built_again(
    cache: PlanCache, changed: dict[str, Any], line: str, caplog: pytest.LogCaptureFixture
) -> None:
    here = msgspec.structs.replace(FACTS, **changed)
    assert _is_rebuilt(cache, here)
    assert f"The plan was built with {line}" in caplog.text
    again = Builder()
    assert cache.plan(KEY, here, again) == b"another plan"
    assert again.builds == 0


@pytest.mark.parametrize(
    "key",
    [
        replace(KEY, onnx_sha256="1" * 64),
        replace(KEY, settings=BuildSettings(precision="int8")),
        replace(KEY, device_uuid="GPU-1"),
        replace(KEY, extra={"outputs": ["class_map", "confidence"]}),
    ],
)
def test_another_graph_setting_or_gpu_is_another_plan(cache: PlanCache, key: PlanKey) -> None:
    assert cache.load(key, FACTS) is None
    assert _is_rebuilt(cache, key=key)
    assert cache.load(KEY, FACTS) == PLAN


def test_compatible_plans_serve_what_they_were_built_for(folder: Path) -> None:
    newer = msgspec.structs.replace(FACTS, version="10.13.2")
    older = msgspec.structs.replace(FACTS, version="10.2.9")
    next_major = msgspec.structs.replace(FACTS, version="11.0.0")
    key = replace(KEY, settings=BuildSettings(version_compatible=True))
    cache = PlanCache(folder)
    cache.plan(key, FACTS, Builder())
    assert [cache.load(key, facts) for facts in (newer, older, next_major)] == [PLAN, None, None]

    other = msgspec.structs.replace(FACTS, gpu="RTX 4090", compute_capability=(8, 9))
    turing = msgspec.structs.replace(FACTS, gpu="RTX 2080", compute_capability=(7, 5))
    key = replace(KEY, settings=BuildSettings(hardware_compatible=True))
    cache.plan(key, FACTS, Builder())
    assert [cache.load(replace(key, device_uuid="GPU-1"), facts) for facts in (other, turing)] == [PLAN, None]


@pytest.mark.parametrize("size", [0, 1, len(PLAN) - 1, len(PLAN) + 1])
def test_a_plan_of_another_length_is_built_again(cache: PlanCache, folder: Path, size: int) -> None:
    _file(folder, "plan").write_bytes((PLAN + b"x")[:size])
    assert _is_rebuilt(cache)


@given(position=st.integers(0, len(PLAN) - 1), bit=st.integers(0, 7))
def test_no_flipped_bit_gets_through(tmp_path_factory: pytest.TempPathFactory, position: int, bit: int) -> None:
    folder = tmp_path_factory.mktemp("plans")
    cache = PlanCache(folder)
    cache.plan(KEY, FACTS, Builder())
    damaged = bytearray(PLAN)
    damaged[position] ^= 1 << bit
    _file(folder, "plan").write_bytes(damaged)
    assert cache.load(KEY, FACTS) is None


def test_a_pair_of_files_moved_to_another_plans_place_is_not_taken(cache: PlanCache, folder: Path) -> None:
    other = replace(KEY, onnx_sha256="1" * 64)
    for ending in ("plan", "json"):
        (folder / f"{KEY.name}.{ending}").rename(folder / f"{other.name}.{ending}")
    assert _is_rebuilt(cache, key=other)


def test_the_sidecar_of_another_plan_is_not_taken(cache: PlanCache, folder: Path) -> None:
    other = replace(KEY, onnx_sha256="1" * 64)
    cache.plan(other, FACTS, Builder(b"the other"))
    (folder / f"{other.name}.json").replace(folder / f"{KEY.name}.json")
    assert _is_rebuilt(cache)


_VALID: dict[str, Any] = {
    "library": "tensorrt", "version": "10.3.0", "driver": "560.35, CUDA 12.6", "gpu": "Orin",
    "compute_capability": [8, 7], "power_mode": "MAXN",
    "name": KEY.name, "recipe": KEY.recipe, "plan_sha256": "0" * 64, "plan_bytes": 5, "build_s": 1.0,
}  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[" * 60_000,
        b'{"a":' * 12_000,
        b" " * (1 << 20),
        json.dumps(_VALID).encode() + b" " * (1 << 16),
        json.dumps(_VALID | {"more": 1}).encode(),
        json.dumps({key: value for key, value in _VALID.items() if key != "driver"}).encode(),
        *(
            json.dumps(_VALID | {key: value}).encode()
            for key, value in (
                ("driver", 12060), ("driver", "5\n60"), ("driver", "5" * 1000), ("compute_capability", [8]),
                ("gpu", "Orin\x1b[31m"), ("version", "1" * 300), ("plan_bytes", 0), ("plan_bytes", 1 << 60),
                ("build_s", float("inf")), ("build_s", -1), ("plan_sha256", "../../etc"), ("name", "0" * 63),
            )
        ),
    ],
    ids=lambda content: content[:40].decode(errors="replace"),
)  # fmt: skip
def test_hostile_sidecars_are_refused(cache: PlanCache, folder: Path, content: bytes) -> None:
    _file(folder, "json").write_bytes(content)
    assert cache.load(KEY, FACTS) is None
    assert _is_rebuilt(cache)


def test_the_valid_sidecar_of_the_test_above_is_valid() -> None:
    assert read_sidecar(json.dumps(_VALID).encode()) is not None


@given(st.binary(max_size=300))
def test_any_bytes_are_a_sidecar_or_none(content: bytes) -> None:
    read_sidecar(content)


@pytest.mark.parametrize("ending", ["plan", "json"])
def test_links_and_things_that_are_no_files_are_not_followed(cache: PlanCache, folder: Path, ending: str) -> None:
    path = _file(folder, ending)
    moved = path.rename(folder.parent / path.name)
    path.symlink_to(moved)
    assert _is_rebuilt(cache)
    assert moved.read_bytes() != _file(folder, ending).read_bytes()  # written beside, not through the link
    _file(folder, ending).unlink()
    os.mkfifo(path)  # reading it would block for ever
    assert cache.load(KEY, FACTS) is None


def test_a_link_or_open_folder_is_not_used_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    for name in ("link", "open"):
        cache = PlanCache(tmp_path / name)
        assert cache.plan(KEY, FACTS, Builder()) == PLAN
        cache.keep_timing("a", b"timed")
        assert cache.timing("a") == b""
    assert not list((tmp_path / "real").iterdir())
    assert not list((tmp_path / "open").iterdir())
    assert "the cache folder is not safe" in caplog.text


def test_a_plan_can_be_forgotten(cache: PlanCache) -> None:
    cache.forget(KEY)
    cache.forget(KEY)
    assert _is_rebuilt(cache)


def test_what_a_build_raises_is_passed_on_and_the_next_one_is_free_to_try(folder: Path) -> None:
    def fails() -> bytes:
        raise KeyError("the build")

    cache = PlanCache(folder)
    with pytest.raises(KeyError):
        cache.plan(KEY, FACTS, fails)
    assert cache.plan(KEY, FACTS, Builder()) == PLAN


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file of this process can grow beyond 1000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_costs_a_warning_and_leaves_nothing(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = PlanCache(folder)
    assert cache.plan(KEY, FACTS, Builder()) == PLAN
    cache.keep_timing("a", PLAN)
    assert "the plan is not kept, the next start builds it again" in caplog.text
    assert "what TensorRT has timed is not kept" in caplog.text
    assert [path.name for path in folder.iterdir()] == ["lock"]


def test_the_plans_that_were_not_used_for_longest_make_room(folder: Path) -> None:
    keys = [replace(KEY, onnx_sha256=str(number) * 64) for number in range(4)]
    cache = PlanCache(folder, limit_bytes=3 * len(PLAN) + 3000)  # three plans with their sidecars
    for number, key in enumerate(keys[:3]):
        cache.plan(key, FACTS, Builder())
        os.utime(folder / f"{key.name}.json", (number, number))
        os.utime(folder / f"{key.name}.plan", (number, number))
    assert cache.load(keys[0], FACTS) == PLAN  # the oldest is used again
    (folder / ".part-99999").write_bytes(b"left by a builder that was killed")
    cache.plan(keys[3], FACTS, Builder())
    assert [cache.load(key, FACTS) is not None for key in keys] == [True, False, True, True]
    assert not (folder / ".part-99999").exists()
    PlanCache(folder, limit_bytes=1).plan(KEY, msgspec.structs.replace(FACTS, driver="another"), Builder())
    assert {path.stem for path in folder.iterdir()} == {"lock", KEY.name}  # the one that is needed now stays


def test_the_timing_cache_is_kept_by_owner_and_a_damaged_one_is_dropped(folder: Path) -> None:
    cache = PlanCache(folder)
    assert cache.timing("10.3 GPU-0") == b""
    cache.keep_timing("10.3 GPU-0", b"first")
    cache.keep_timing("10.3 GPU-0", b"second")
    assert (cache.timing("10.3 GPU-0"), cache.timing("10.7 GPU-0")) == (b"second", b"")
    path = _file(folder, "timing")
    path.write_bytes(path.read_bytes()[:-1])
    assert cache.timing("10.3 GPU-0") == b""


BUILDER = """
import logging, sys
from pathlib import Path
from tests.runtime.engines.tensorrt.test_plan_cache import FACTS, KEY, PLAN
from vidseg.runtime.engines.tensorrt.plan_cache import PlanCache

logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")

def build():
    print("building", flush=True)
    sys.stdin.readline()
    return PLAN

assert PlanCache(Path(sys.argv[1])).plan(KEY, FACTS, build) == PLAN
print("has the plan", flush=True)
"""


def _started(folder: Path) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(folder)], stdin=pipe, stdout=pipe, stderr=pipe, text=True,
        cwd=Path(__file__).parents[4],
    )  # fmt: skip


def _line(stream: Any) -> str:
    return str(stream.readline()).strip()


@pytest.mark.timeout(DEADLINE_S)
def test_two_processes_that_build_at_once_end_with_one_build_and_one_plan(folder: Path) -> None:
    first, second = _started(folder), None
    try:
        assert _line(first.stdout) == "building"
        second = _started(folder)
        assert _line(second.stderr) == "another process builds a plan now: waiting for it"
        said, _ = first.communicate("go on\n")
        assert (said.strip(), first.returncode) == ("has the plan", 0)
        said, _ = second.communicate()  # it built nothing: it would wait for a line
        assert (said.strip(), second.returncode) == ("has the plan", 0)
    finally:
        for process in (first, second):
            if process is not None:
                process.kill()
                process.communicate()
    assert sorted(path.suffix for path in folder.iterdir()) == ["", ".json", ".plan"]


@pytest.mark.timeout(DEADLINE_S)
def test_waiting_for_another_build_can_be_given_up(folder: Path) -> None:
    def given_up() -> None:
        raise KeyboardInterrupt

    process = _started(folder)
    try:
        assert _line(process.stdout) == "building"
        with pytest.raises(KeyboardInterrupt):
            PlanCache(folder).plan(KEY, FACTS, Builder(), given_up)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.timeout(DEADLINE_S)
def test_a_builder_that_was_killed_does_not_block_the_next(folder: Path) -> None:
    process = _started(folder)
    assert _line(process.stdout) == "building"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert PlanCache(folder).plan(KEY, FACTS, Builder()) == PLAN


def test_waiting_for_nobody_says_nothing(cache: PlanCache, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert not _is_rebuilt(cache)
    assert caplog.text == ""
