"""Which fusion groups suffer from quantization, and which of them go back to float.

Groups are ranked by the noise that each one alone makes at the model's output (one-on), the worst also by how much less
there is without them (one-off). Whether a candidate is good enough is the gate's to say; it is asked a few times only,
because it looks at all verification frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Scores: TypeAlias = Sequence[NDArray[np.float32]]

MAX_TRIES = 16
"""To quantize again what went back to float: each costs a run over all verification frames."""


@dataclass(frozen=True, slots=True)
class GroupNoise:
    """What quantizing one group costs, as a share of the power of the output's differences between classes.

    Attributes:
        name: of the group.
        one_on: noise with this group quantized alone.
        one_off: by how much the noise of all groups falls when this one is float; None where that was not measured.
    """

    name: str
    one_on: float
    one_off: float | None = None

    @property
    def signal_to_noise_db(self) -> float:
        """One-on, in decibels."""
        return float(-10 * np.log10(max(self.one_on, 1e-20)))


class NoiseMeter:
    """Noise of candidates at the output, against the float model on the same frames.

    Only differences between classes count, because adding the same to all classes of a pixel changes no class.

    Args:
        reference: the float model's scores, (1, classes, h, w) or (1, h, w, classes) float32 a frame.
        axis: of the classes.
    """

    def __init__(self, reference: Scores, axis: int) -> None:
        self._axis = axis
        self._reference = [self._centered(scores) for scores in reference]
        self._power = sum(float((scores**2).sum()) for scores in self._reference)

    def noise(self, scores: Scores) -> float:
        """Power of the difference, as a share of the signal's."""
        pairs = zip(scores, self._reference, strict=True)
        difference = sum(float(((self._centered(found) - wanted) ** 2).sum()) for found, wanted in pairs)
        return difference / max(self._power, 1e-30)

    def _centered(self, scores: NDArray[np.float32]) -> NDArray[np.float64]:
        values = scores.astype(np.float64)
        if values.shape[self._axis] == 1:  # one probability: nothing to compare it with
            return values
        centered: NDArray[np.float64] = values - values.mean(axis=self._axis, keepdims=True)
        return centered


def rank_groups(
    names: Sequence[str],
    noise_of: Callable[[frozenset[str]], float],
    worst: int,
    progress: Callable[[], None] = lambda: None,
    workers: int = 1,
) -> list[GroupNoise]:
    """All groups, the one that makes most noise first.

    Args:
        names: of the groups.
        noise_of: noise of the graph with these groups quantized.
        worst: how many of the first are measured one-off too; they are ordered among themselves by the larger of both.
        progress: called after each measurement.
        workers: threads that call `noise_of`.
    """
    everything = frozenset(names)
    pool = ThreadPoolExecutor(workers)

    def measured(sets: Iterable[frozenset[str]]) -> Iterator[float]:
        for noise in pool.map(noise_of, sets):
            progress()
            yield noise

    try:
        alone = dict(zip(names, measured(frozenset([name]) for name in names), strict=True))
        order = sorted(names, key=lambda name: (-alone[name], name))
        total = noise_of(everything) if worst else 0.0
        without = dict(zip(order[:worst], measured(everything - {name} for name in order[:worst]), strict=True))
    finally:  # after Ctrl-C nobody waits for what has not begun
        pool.shutdown(cancel_futures=True)
    ranked = [GroupNoise(name, alone[name], total - without[name] if name in without else None) for name in order]
    head = sorted(ranked[:worst], key=lambda group: (-max(group.one_on, group.one_off or 0.0), group.name))
    return head + ranked[worst:]


def fewest_floats(
    order: Sequence[str], passes: Callable[[frozenset[str]], bool], macs: Mapping[str, int]
) -> frozenset[str] | None:
    """The groups that stay quantized when few of the worst go back to float.

    The number of floats is searched by halving, since a candidate with more of them is hardly ever worse. What went
    back is then tried quantized again, in halves of halves, because one guilty group may be ranked low and take all
    above it along (as delta debugging finds the changes that break a program: Zeller and Hildebrandt, Simplifying and
    isolating failure-inducing input, 2002).

    Args:
        order: all groups, the worst first.
        passes: whether the gate lets a set of quantized groups through.
        macs: multiply-adds by group.

    Returns:
        The quantized groups; None where none passes.
    """
    everything = frozenset(order)
    if passes(everything):
        return everything
    low, high = 0, len(order)  # `low` floats fail, `high` floats are the float model
    best: frozenset[str] = frozenset()
    while high - low > 1:
        middle = (low + high) // 2 if best or low > 0 else min(max(1, len(order) // 16), high - 1)
        kept = frozenset(order[middle:])
        if passes(kept):
            best, high = kept, middle
        else:
            low = middle
    tries = MAX_TRIES
    blocks = _halves(sorted(everything - best, key=lambda name: (-macs[name], name)))
    while blocks and tries:
        block = blocks.pop(0)
        more = best | frozenset(block)
        tries -= 1
        if more != everything and passes(more):
            best = more
        elif len(block) > 1:
            blocks += _halves(block)
    return best or None


def _halves(names: list[str]) -> list[list[str]]:
    middle = len(names) // 2
    return [half for half in (names[:middle], names[middle:]) if half]
