"""Manifests, configurations, calibration tables and plan sidecars that somebody has damaged, or made up."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from tests.fuzz.campaign import Campaign
from tests.fuzz.documents import billion_laughs, hostile_json, hostile_yaml
from tests.fuzz.invariant import OBEYED, limited, tried
from tests.fuzz.mutation import damaged_bytes, damaged_text
from tests.tiny_models import tiny_parts
from vidseg.calibration.table import (
    CalibrationTable,
    TensorRange,
    parse_table,
    parse_tensorrt_cache,
    table_json,
    tensorrt_cache,
)
from vidseg.runtime.bundle import Bundle, open_bundle, sha256_of
from vidseg.runtime.engines.tensorrt.settings import BuildSettings
from vidseg.runtime.engines.tensorrt.sidecar import Sidecar, mismatch, read_sidecar
from vidseg.runtime.inspection import bundle_text
from vidseg.runtime.manifest import Manifest, manifest_text, parse_manifest
from vidseg.runtime.pipeline.opening import OpenOptions, demo_bundle_path
from vidseg.runtime.site import Site, read_site, sources_of, with_site

ROOT = Path(__file__).parents[2]

SECRETS = ("zebra7", "quokka8", "ocelot9")
PASSWORD = "zebra7@quokka8/ocelot9?#["

SITES = (
    (ROOT / "docs/site.md").read_text().split("```")[1].removeprefix("yaml\n"),
    f"sources: {{gate: {{uri: 'rtsp://me:{PASSWORD}@[fe80::1%eth0]:554/x?token=ocelot9'}}}}",
    (
        f"sources:\n  a b:\n    uri: http://me:{PASSWORD}@camera/x\n  c: {{uri: 'scene://street?size=64x48&frames=2'}}\n"
        "hang_s: 5\nengine: openvino\nvariant: float\nevery_frame: true\nsinks: ['null://', 'jsonl://-']\n"
    ),
)


@pytest.fixture(scope="module")
def documents() -> list[dict[str, Any]]:
    """The demo model's manifest, and a small one."""
    manifest, members = tiny_parts()
    tiny = msgspec.structs.replace(manifest, members={name: sha256_of(content) for name, content in members.items()})
    return [yaml.safe_load(manifest_text(one)) for one in (open_bundle(demo_bundle_path()).manifest, tiny, tiny, tiny)]


def test_manifests(campaign: Campaign, documents: list[dict[str, Any]]) -> None:
    for rng in campaign.cases("manifest", 150):
        content = hostile_yaml(rng, rng.choice(documents))
        manifest = tried(lambda content=content: parse_manifest(content, "a.vidseg"))  # type: ignore[misc]
        if manifest is not None:
            _check_manifest(manifest)


def _check_manifest(manifest: Manifest) -> None:
    assert parse_manifest(manifest_text(manifest), "again") == manifest
    for line in bundle_text(Bundle(Path("a"), manifest, {})).split("\n"):
        assert not OBEYED.search(line), repr(line)


def test_sites(campaign: Campaign, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{PASSWORD}\n")
    environment = {"GATE_USER": "me", "GATE": PASSWORD}
    parsed = [yaml.safe_load(text) for text in SITES]
    words = ("zebra7", "${GATE}", f"${{file:{tmp_path}/secret}}", f"rtsp://me:{PASSWORD}@camera")
    path = tmp_path / "site.yaml"
    for rng in campaign.cases("site", 200):
        path.write_bytes(hostile_yaml(rng, rng.choice(parsed), words))
        site = tried(lambda: read_site(path), SECRETS)
        if site is not None:
            _check_site(site, environment)


def _check_site(site: Site, environment: dict[str, str]) -> None:
    written = yaml.safe_dump(msgspec.to_builtins(site), allow_unicode=True)
    assert msgspec.convert(yaml.safe_load(written), Site) == site
    assert all(name.isprintable() for name in (*site.sources, *site.zones, *site.events))
    sources = tried(lambda: sources_of(site, environment), () if _shows_itself(site) else SECRETS)
    tried(lambda: with_site(OpenOptions(), site, frozenset()), SECRETS)
    for source in sources or ():
        assert source.name in site.sources


def _shows_itself(site: Site) -> bool:
    """True where the damage has made a part of a password a file's name, or a scene's."""
    return any("://" not in spec.uri or spec.uri.startswith("scene:") for spec in site.sources.values())


def test_a_few_aliases_that_stand_for_gigabytes_are_refused_at_once() -> None:
    for depth in (9, 30, 900):
        with limited(), pytest.raises(ValueError, match="an alias"):
            parse_manifest(billion_laughs(depth), "a.vidseg")


def _table() -> CalibrationTable:
    tensor = TensorRange(amax={"max": 2.0, "mse": 1.5}, method="mse", signed=True)
    tensors = {"images": tensor, "(Unnamed Layer* 3) [Conv]_output": tensor}
    return CalibrationTable(
        format=1, model_sha256="a" * 64, frames_sha256="b" * 64, frames=3, tensors=tensors,
        equalization={"images": (1.0, 2.5)},
    )  # fmt: skip


def test_calibration_tables(campaign: Campaign) -> None:
    document = json.loads(table_json(_table()))
    for rng in campaign.cases("table", 300):
        content = hostile_json(rng, document)
        table = tried(lambda content=content: parse_table(content, "frames.json"))  # type: ignore[misc]
        if table is not None:
            assert parse_table(table_json(table), "again") == table
            cache = tensorrt_cache(table.amax())
            tried(lambda cache=cache: parse_tensorrt_cache(cache, "cache"))  # type: ignore[misc]


def test_calibration_caches(campaign: Campaign) -> None:
    text = tensorrt_cache(_table().amax() | {"a: b": 3.0})
    for rng in campaign.cases("cache", 200):
        damaged = damaged_text(rng, text)
        found = tried(lambda damaged=damaged: parse_tensorrt_cache(damaged, "cache"))  # type: ignore[misc]
        if found is not None:
            assert all(0 < value < float("inf") for value in found.values())
            assert parse_tensorrt_cache(tensorrt_cache(found), "again").keys() == found.keys()


def _sidecar() -> Sidecar:
    return Sidecar(
        library="tensorrt", version="10.3.0", driver="560.35", gpu="NVIDIA Orin", compute_capability=(8, 7),
        power_mode="MAXN", name="a" * 64, recipe="b" * 64, plan_sha256="c" * 64, plan_bytes=9, build_s=181.5,
    )  # fmt: skip


def _settings(rng: random.Random) -> BuildSettings:
    return BuildSettings(version_compatible=rng.random() < 0.5, hardware_compatible=rng.random() < 0.5)


def test_plan_sidecars(campaign: Campaign) -> None:
    here = _sidecar()
    document = msgspec.to_builtins(here)
    for rng in campaign.cases("sidecar", 300):
        content = hostile_json(rng, document)
        if rng.random() < 0.1:
            content = damaged_bytes(rng, b"")
        with limited():
            found = read_sidecar(content)
        if found is not None:
            assert not OBEYED.search(mismatch(found, here, _settings(rng)) + found.again)
            assert read_sidecar(msgspec.json.encode(found)) == found
