"""What is kept beside plans: how to build them, and that one cannot be built. A wrong one costs minutes or memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from tests.runtime.engines.tensorrt.test_plan_cache import FACTS, KEY, PLAN, Builder
from vidseg.runtime.bundle import sha256_of
from vidseg.runtime.engines.tensorrt.plan_cache import PlanCache
from vidseg.runtime.engines.tensorrt.settings import BuildSettings
from vidseg.runtime.errors import EngineError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "plans"


def _file(folder: Path, ending: str) -> Path:
    (path,) = folder.glob(f"*.{ending}")
    return path


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b'{"max_batch": 1000}', b'{"precision": "fp8"}', b"[" * 10_000])
def test_how_plans_are_to_be_built_is_kept_by_owner_and_a_damaged_file_is_told(
    folder: Path, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    cache = PlanCache(folder)
    assert cache.settings("a model") is None
    settings = BuildSettings(precision="int8", max_batch=4, workspace_mib=256, dla_core=None, tactic_sources=("CUDNN",))
    cache.keep_settings("a model", BuildSettings())
    cache.keep_settings("a model", settings)
    assert (cache.settings("a model"), cache.settings("another")) == (settings, None)
    path = _file(folder, "settings")
    path.write_bytes(path.read_bytes()[:32] + damage)
    assert cache.settings("a model") is None
    assert "is damaged: what `vidseg build` was told" in caplog.text


def test_settings_of_another_owner_or_in_a_folder_of_others_are_not_taken(folder: Path) -> None:
    cache = PlanCache(folder)
    cache.keep_settings("a model", BuildSettings(workspace_mib=7))
    path = _file(folder, "settings")
    path.rename(path.with_name(f"{sha256_of(b'another')}.settings"))
    assert cache.settings("another") is None
    cache.keep_settings("a model", BuildSettings(workspace_mib=7))
    folder.chmod(0o777)
    assert PlanCache(folder).settings("a model") is None


def test_what_took_long_to_fail_is_not_tried_again_until_something_has_changed(folder: Path) -> None:
    def fails() -> bytes:
        tries.append(1)
        raise EngineError("TensorRT refuses the graph")

    tries: list[int] = []
    cache = PlanCache(folder, costly_s=0)
    for _ in range(3):
        with pytest.raises(EngineError, match="TensorRT refuses the graph"):
            cache.plan(KEY, FACTS, fails)
    assert len(tries) == 1
    with pytest.raises(EngineError, match=r"It is not tried again today: `vidseg build` does\."):
        cache.plan(KEY, FACTS, fails)
    with pytest.raises(EngineError):
        cache.plan(KEY, msgspec.structs.replace(FACTS, driver="another"), fails)
    assert len(tries) == 2
    cache.forget_refusal(KEY)
    assert cache.plan(KEY, FACTS, Builder()) == PLAN


def test_what_fails_at_once_may_be_tried_at_every_start(folder: Path) -> None:
    def fails() -> bytes:
        tries.append(1)
        raise EngineError("no room in the temporary folder")

    tries: list[int] = []
    for _ in range(2):
        with pytest.raises(EngineError):
            PlanCache(folder).plan(KEY, FACTS, fails)
    assert len(tries) == 2


def test_where_nothing_can_be_kept_nothing_is_built_twice_and_the_log_says_it_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir(mode=0o777, exist_ok=True)
    folder.chmod(0o777)
    cache, builder = PlanCache(folder), Builder()
    for _ in range(3):
        assert cache.plan(KEY, FACTS, builder) == PLAN
    assert builder.builds == 1
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) <= 2


def test_a_plan_for_another_gpu_is_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = PlanCache(folder)
    cache.plan(KEY, FACTS, Builder())
    assert cache.plan(replace(KEY, device_uuid="GPU-9"), FACTS, Builder(b"another")) == b"another"
    assert "The plan was built for another GPU, Orin." in caplog.text
