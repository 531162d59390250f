"""A name that a release does not have ends the run on the one device that has that release: here they all are asked.

The objects of the library are followed through the source, for each release, and every name of theirs is looked up
there, and what it is called with; see `used_names`. What the source asks for beforehand may be missing.
"""

from __future__ import annotations

import ast
import importlib.util
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runtime.engines.tensorrt.releases import Release, Signature, fetched, installed_rtx
from tests.runtime.engines.tensorrt.used_names import Kinds, Use, UsedNames
from vidseg.runtime.engines.tensorrt import lowering
from vidseg.runtime.engines.tensorrt.library import ABILITIES

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc for the stand-ins of the libraries"),
]

SOURCE = sorted((Path(__file__).parents[4] / "runtime/engines/tensorrt").glob("*.py"))
WORDS = {
    "weak": ABILITIES["weakly_typed"],
    "strong": ABILITIES["strongly_typed"],
    "ranges": ABILITIES["ranges"],  # None where they are not offered
}
BINDINGS = {  # the oldest, JetPack 6.1 and 6.2, the type stubs', the newest; with the newest Python that each is for
    "8.6.1": ("tensorrt-bindings==8.6.1", (3, 11)),
    "10.3.0": ("tensorrt-cu12-bindings==10.3.0", (3, 12)),
    "10.13.0.35": ("tensorrt-cu12-bindings==10.13.0.35", (3, 13)),
    "11.4.0.106": ("tensorrt-cu12-bindings==11.4.0.106", (3, 13)),
}
NEWEST, RTX = "11.4.0.106", "RTX"
MISSING = {  # abilities, as each release has them
    "8.6.1": {"strongly_typed", "progress", "ahead_of_time"},
    "10.3.0": {"ahead_of_time"},
    "10.13.0.35": {"ahead_of_time"},
    "11.4.0.106": {"weakly_typed", "ranges", "ahead_of_time"},
    RTX: {"weakly_typed", "ranges"},
}


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Release]:
    """The releases that there are for this Python."""
    suited = {name: text for name, (text, newest) in BINDINGS.items() if sys.version_info[:2] <= newest}
    folders = [tmp_path_factory.mktemp("bindings") for _ in suited]
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(fetched, suited.values(), folders)
        releases = dict(zip(suited, found, strict=True))
    return releases | ({RTX: installed_rtx()} if importlib.util.find_spec("tensorrt_rtx_bindings") else {})


@pytest.fixture(scope="module")
def followed(releases: dict[str, Release]) -> dict[str, UsedNames]:
    return {label: UsedNames(SOURCE, release, ABILITIES, WORDS) for label, release in releases.items()}


def _wrong(release: Release, uses: list[Use]) -> list[str]:
    """What is used although the release does not have it, or not so."""
    found = []
    for use in uses:
        if not _is_reached(release, use):
            continue
        member = release.member(use.owner, use.name)
        name = f"{use.where}: {use.owner or 'module'}.{use.name}"
        if member is None:
            found.append(f"{name} is missing")
        elif use.arguments is not None and not _is_taken(release, use.arguments, member.takes):
            found.append(f"{name} does not take {[sorted(kinds) for kinds in use.arguments]}")
    return found


def test_every_name_is_there_in_every_release_unless_it_was_asked_for(
    releases: dict[str, Release], followed: dict[str, UsedNames]
) -> None:
    assert NEWEST in releases
    for label, release in releases.items():
        uses = followed[label].uses()
        assert len({(use.owner, use.name) for use in uses}) >= 60, label
        assert _wrong(release, uses) == [], label


def test_what_is_asked_for_is_somewhere(releases: dict[str, Release], followed: dict[str, UsedNames]) -> None:
    """A name with a slip in it is missing everywhere, and what it guards is never used."""
    if RTX not in releases:
        pytest.skip('some names are those of TensorRT-RTX: pip install "vidseg[rtx]"')
    asked = {place for places in ABILITIES.values() for place in places}
    for names in followed.values():
        asked |= {(use.owner, use.name) for use in names.uses()}
    assert [place for place in sorted(asked) if not any(release.has(*place) for release in releases.values())] == []


def test_the_abilities_of_each_release(releases: dict[str, Release]) -> None:
    for label, release in releases.items():
        missing = {name for name, places in ABILITIES.items() if not all(release.has(*place) for place in places)}
        assert missing == MISSING[label], label


def test_no_object_of_the_library_is_lost_from_sight(
    releases: dict[str, Release], followed: dict[str, UsedNames]
) -> None:
    """Where one is, the names of its attributes are not checked: then `used_names` has to learn."""
    kinds: list[Any] = [str, bytes, list, dict, set, int, float, Path, np.ndarray, np]
    ordinary = {name for kind in kinds for name in dir(kind)} | {
        "append",
        "logger",
        "value",
        "INFO",
        "WARNING",
        "DEBUG",
    }
    ours = {name for path in SOURCE for node in ast.walk(ast.parse(path.read_text())) for name in _defined(node)}
    for label, release in releases.items():
        theirs = {name for members in release.classes.values() for name in members} | {*release.classes, *release.rest}
        files = {use.where.partition(":")[0] for use in followed[label].uses()}
        lost = [
            f"{use.where}: {use.name}"
            for use in followed[label].lost()
            if use.name in theirs - ordinary - ours and use.where.partition(":")[0] in files
            if _is_reached(release, use)
        ]
        assert lost == [], label


def test_flags_by_name_are_those_that_were_asked_for() -> None:
    places = (*ABILITIES["weakly_typed"], *ABILITIES["ranges"])
    known = {name for owner, name in places if owner == "BuilderFlag"}
    assert known >= {"FP16", "INT8"}
    source = ast.parse(Path(lowering.__file__).read_text())
    strings = {
        node.value for node in ast.walk(source) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert {text for text in strings if text.isupper()} <= known


def test_a_wrong_name_is_found(releases: dict[str, Release], tmp_path: Path) -> None:
    slips = tmp_path / "slips.py"
    slips.write_text(
        """
def build(library, abilities):
    module = library.module
    builder = module.Builder(library.logger)
    config = builder.create_builder_config()
    if abilities.weakly_typed:
        config.set_flag(module.BuilderFlag.FP16)
    config.set_flag(module.BuilderFlag.FP61)
    _tune(config, builder)
    config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE)
    config.set_memory_pool_limit(module.BuilderFlag.REFIT, 1)
    if hasattr(config, "max_aux_stream"):
        config.max_aux_stream = 0
    return [layer.get_outputs(0) for layer in _layers(builder.create_network(0))]

def _tune(config, builder):
    if not hasattr(config, "progress_monitor"):
        return
    config.progres_monitor = None
    builder.num_DLA_core

def _layers(network):
    return [network.get_layer(index) for index in range(network.num_layers)]
"""
    )
    release = releases[NEWEST]
    wrong = _wrong(release, UsedNames([slips], release, ABILITIES, WORDS).uses())
    assert {line.partition(": ")[2] for line in wrong} == {
        "ILayer.get_outputs is missing",
        "IBuilderConfig.progres_monitor is missing",
        "Builder.num_DLA_core is missing",
        "BuilderFlag.FP61 is missing",
        "IBuilderConfig.set_memory_pool_limit does not take [['IBuilderConfig'], ['MemoryPoolType']]",
        "IBuilderConfig.set_memory_pool_limit does not take [['IBuilderConfig'], ['BuilderFlag'], []]",
    }


def _is_reached(release: Release, use: Use) -> bool:
    return all(all(release.has(*place) for place in places) is truth for places, truth in use.guards)


def _is_taken(release: Release, arguments: tuple[Kinds, ...], overloads: tuple[Signature, ...]) -> bool:
    return not overloads or any(_fits(release, arguments, signature) for signature in overloads)


def _fits(release: Release, arguments: tuple[Kinds, ...], signature: Signature) -> bool:
    """Whether a function takes so many arguments, and each of the library's objects in its place."""
    if not sum(not parameter.optional for parameter in signature) <= len(arguments) <= len(signature):
        return False
    return all(
        kind not in release.lines or parameter.kind is None or parameter.kind in release.lines[kind]
        for kinds, parameter in zip(arguments, signature, strict=False)
        for kind in kinds
    )


def _defined(node: ast.AST) -> list[str]:
    """Names that a statement gives to attributes of our own classes, and to functions."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        return [node.attr]
    return []
