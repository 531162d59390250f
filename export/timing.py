"""Timing graphs against each other, interleaved, and leaving out groups that gain nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from time import perf_counter

import numpy as np

from vidseg.export.groups import FusionGroup
from vidseg.runtime.engines import Engine, predict
from vidseg.runtime.frame import Image

ROUNDS = 12
MIN_ROUNDS = 4
MAX_SECONDS = 12.0
MAX_FAMILIES = 6
"""That are timed one by one, those with most multiply-adds; the others together: each costs a second or more."""


def latencies_ms(
    openers: Mapping[str, Callable[[], Engine]], image: Image, rounds: int = ROUNDS, block: int = 3
) -> dict[str, float]:
    """Median latency of engines, from the picture to the class map, measured in turns so that noise hits all alike.

    Args:
        openers: by name.
        image: at the input's size.
        rounds: of `block` runs each; fewer where that takes longer than MAX_SECONDS.
        block: runs in a row, after one that is not counted.
    """
    times: dict[str, list[float]] = {name: [] for name in openers}
    with ExitStack() as stack:
        engines = {name: stack.enter_context(opener()) for name, opener in openers.items()}
        deadline = perf_counter() + MAX_SECONDS
        for number in range(rounds):
            if number >= MIN_ROUNDS and perf_counter() > deadline:
                break
            for name, engine in engines.items():
                predict(engine, image)
                for _ in range(block):
                    started = perf_counter()
                    predict(engine, image)
                    times[name].append((perf_counter() - started) * 1e3)
    return {name: float(np.median(found)) for name, found in times.items()}


def families_of(groups: Iterable[FusionGroup]) -> dict[str, list[FusionGroup]]:
    """Groups that engines compute alike: of one operator and kind, at one size."""
    families: dict[str, list[FusionGroup]] = {}
    for group in groups:
        kind = "depthwise" if group.depthwise else "narrow" if group.is_narrow else "dense"
        families.setdefault(f"{kind} {group.operator} of {group.positions} positions", []).append(group)
    return families


def _largest(families: dict[str, list[FusionGroup]]) -> dict[str, list[FusionGroup]]:
    order = sorted(families, key=lambda name: (-sum(group.macs for group in families[name]), name))
    large, small = order[:MAX_FAMILIES], order[MAX_FAMILIES:]
    rest = [group for name in small for group in families[name]]
    return {name: families[name] for name in large} | ({"all smaller ones": rest} if rest else {})


def without_useless(
    groups: Sequence[FusionGroup],
    opener: Callable[[Sequence[FusionGroup]], Callable[[], Engine]],
    image: Image,
) -> tuple[list[FusionGroup], dict[str, tuple[str, ...]]]:
    """Leave out families of groups whose quantization does not make the network faster.

    Each family is left out alone, and all are timed in turns beside the whole; then all that gain nothing are left out
    together, if that is no slower.

    Returns:
        The groups that stay, and the families that went: names of their groups.
    """
    families = _largest(families_of(groups))
    if len(families) < 2:
        return list(groups), {}
    rest = {name: [group for group in groups if group not in members] for name, members in families.items()}
    times = latencies_ms({"all": opener(groups), **{name: opener(some) for name, some in rest.items()}}, image, 6, 2)
    useless = {
        name: tuple(group.name for group in members)
        for name, members in families.items()
        if times[name] <= times["all"]
    }
    if not useless:
        return list(groups), {}
    kept = [group for name, members in families.items() if name not in useless for group in members]
    both = latencies_ms({"all": opener(groups), "kept": opener(kept)}, image)
    return (kept, useless) if both["kept"] <= both["all"] else (list(groups), {})
