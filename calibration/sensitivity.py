"""Which fusion groups suffer from quantization, and which of them go back to float.

Groups are ranked by the noise that each one alone makes at the model's output (one-on), the worst also by how much less
there is without them (one-off). Whether a candidate is good enough is the gate's to say; it is asked a few times only,
because it looks at all verification frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Scores: TypeAlias = Sequence[NDArray[np.float32]]


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
) -> list[GroupNoise]:
    """All groups, the one that makes most noise first.

    Args:
        names: of the groups.
        noise_of: noise of the graph with these groups quantized.
        worst: how many of the first are measured one-off too; they are ordered among themselves by the larger of both.
        progress: called after each measurement.
    """
    alone = {}
    for name in names:
        alone[name] = noise_of(frozenset([name]))
        progress()
    order = sorted(names, key=lambda name: (-alone[name], name))
    everything = noise_of(frozenset(names)) if worst else 0.0
    ranked = []
    for number, name in enumerate(order):
        one_off = None
        if number < worst:
            one_off = everything - noise_of(frozenset(names) - {name})
            progress()
        ranked.append(GroupNoise(name, alone[name], one_off))
    head = sorted(ranked[:worst], key=lambda group: (-max(group.one_on, group.one_off or 0.0), group.name))
    return head + ranked[worst:]


def fewest_floats(
    order: Sequence[str], passes: Callable[[frozenset[str]], bool], macs: Mapping[str, int]
) -> frozenset[str] | None:
    """The groups that stay quantized when as few as possible of the worst go back to float.

    The number of floats is searched by halving, since a candidate with more of them is hardly ever worse; then each
    group that went back is tried quantized again, the largest first, as long as that is cheap.

    Args:
        order: all groups, the worst first.
        passes: whether the gate lets a set of quantized groups through.
        macs: multiply-adds by group.

    Returns:
        The quantized groups; None where not even one group passes.
    """
    everything = frozenset(order)
    if passes(everything):
        return everything
    low, high = 0, len(order)  # `low` floats fail, `high` floats are the float model
    best: frozenset[str] | None = None
    while high - low > 1:
        middle = (low + high) // 2 if best is not None or low > 0 else min(max(1, len(order) // 16), high - 1)
        kept = frozenset(order[middle:])
        if passes(kept):
            best, high = kept, middle
        else:
            low = middle
    if best is None:
        return None
    for name in sorted(everything - best, key=lambda name: (-macs[name], name))[:RETRIED]:
        if passes(best | {name}):
            best = best | {name}
    return best


RETRIED = 4
"""Groups that went back to float and are tried quantized again: each costs a run over all verification frames."""
