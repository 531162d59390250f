"""Each group that goes back to float without need costs time; each question to the gate costs half a minute."""

from __future__ import annotations

import threading
from collections.abc import Callable
from math import ceil, log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from vidseg.calibration.sensitivity import MAX_TRIES, GroupNoise, NoiseMeter, fewest_floats, rank_groups

scores = arrays(np.float32, (1, 4, 3, 5), elements=st.floats(-50, 50, width=32))


class Gate:
    """Remembers what it was asked."""

    def __init__(self, rule: Callable[[frozenset[str]], bool]) -> None:
        self._rule = rule
        self.asked: list[frozenset[str]] = []

    def __call__(self, quantized: frozenset[str]) -> bool:
        self.asked.append(quantized)
        return self._rule(quantized)


def names_of(count: int) -> list[str]:
    return [f"group{number:03}" for number in range(count)]


@given(st.integers(1, 200), st.data())
def test_the_least_number_of_floats_is_found_where_more_floats_are_never_worse(count: int, data: st.DataObject) -> None:
    names = names_of(count)
    needed = data.draw(st.integers(0, count))
    gate = Gate(lambda quantized: not quantized & set(names[:needed]))
    found = fewest_floats(names, gate, dict.fromkeys(names, 1))
    assert found == (frozenset(names[needed:]) if needed < count else None)


@given(st.integers(1, 200), st.data())
def test_the_gate_is_asked_a_few_times_only(count: int, data: st.DataObject) -> None:
    names = names_of(count)
    needed = data.draw(st.integers(0, count))
    gate = Gate(lambda quantized: not quantized & set(names[:needed]))
    fewest_floats(names, gate, dict.fromkeys(names, 1))
    assert len(gate.asked) <= 2 + ceil(log2(count + 1)) + MAX_TRIES
    assert all(gate.asked), "the float model needs no gate"


@given(st.integers(2, 60), st.data())
def test_what_is_given_has_passed(count: int, data: st.DataObject) -> None:
    """Even where the gate is moody."""
    names = names_of(count)
    rng = data.draw(st.randoms(use_true_random=False))
    verdicts: dict[frozenset[str], bool] = {}
    gate = Gate(lambda quantized: verdicts.setdefault(quantized, rng.random() < 0.4))
    found = fewest_floats(names, gate, dict.fromkeys(names, 1))
    assert verdicts[found] if found is not None else not verdicts[frozenset(names)]


def test_nothing_is_quantized_where_nothing_passes() -> None:
    names = names_of(40)
    assert fewest_floats(names, lambda _quantized: False, dict.fromkeys(names, 1)) is None


def test_all_that_passes_at_once_is_asked_once() -> None:
    gate = Gate(lambda _quantized: True)
    assert fewest_floats(names_of(40), gate, {}) == frozenset(names_of(40))
    assert len(gate.asked) == 1


@given(st.integers(2, 60), st.data())
def test_one_guilty_group_goes_back_alone_wherever_it_is_ranked(count: int, data: st.DataObject) -> None:
    names = names_of(count)
    guilty = data.draw(st.sampled_from(names))
    gate = Gate(lambda quantized: guilty not in quantized)
    assert fewest_floats(names, gate, dict.fromkeys(names, 1)) == frozenset(names) - {guilty}


def test_two_guilty_groups_take_few_others_along() -> None:
    names = names_of(40)
    gate = Gate(lambda quantized: not quantized & {names[7], names[30]})
    found = fewest_floats(names, gate, {name: number for number, name in enumerate(names)})
    assert found is not None
    assert len(found) >= 30


def test_groups_are_ranked_by_the_noise_that_each_makes_alone() -> None:
    noise = {"a": 1.0, "b": 5.0, "c": 3.0, "d": 3.0}
    ticks: list[None] = []
    ranked = rank_groups(list(noise), lambda names: sum(noise[name] for name in names), 0, lambda: ticks.append(None))
    assert [group.name for group in ranked] == ["b", "c", "d", "a"]
    assert [group.one_on for group in ranked] == [5, 3, 3, 1]
    assert [group.one_off for group in ranked] == [None] * 4
    assert len(ticks) == 4


def test_the_worst_are_ranked_by_what_they_do_among_the_others_too() -> None:
    """Beside others, c is far worse than alone; a is not among the worst and stays behind."""
    alone = {"a": 1.0, "b": 5.0, "c": 3.0}
    ticks: list[None] = []

    def noise_of(names: frozenset[str]) -> float:
        return sum(alone[name] for name in names) + (20 if {"b", "c"} <= names else 0) + 3 * (names == {"a", "b"})

    ranked = rank_groups(list(alone), noise_of, 2, lambda: ticks.append(None))
    assert [(group.name, group.one_off) for group in ranked] == [("b", 25), ("c", 20), ("a", None)]
    assert len(ticks) == 5
    quiet = rank_groups(list(alone), lambda names: noise_of(names) + 9 * ("c" in names and len(names) == 3), 2)
    assert [group.name for group in quiet][-1] == "a"


def test_a_group_whose_noise_shows_only_beside_others_goes_first() -> None:
    noise = {"a": 5.0, "b": 3.0, "c": 1.0, "abc": 40.0, "bc": 35.0, "ac": 6.0}
    ranked = rank_groups(["a", "b", "c"], lambda names: noise["".join(sorted(names))], 2)
    assert [(group.name, group.one_off) for group in ranked] == [("b", 34), ("a", 5), ("c", None)]


def test_what_has_not_begun_is_not_waited_for_after_ctrl_c() -> None:
    asked: list[frozenset[str]] = []
    never = threading.Event()

    def slow(names: frozenset[str]) -> float:
        asked.append(names)
        never.wait(0.05)  # the work itself
        return 1.0

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rank_groups(names_of(200), slow, 0, interrupt, workers=2)
    assert len(asked) < 20


@given(st.lists(st.floats(0, 10), min_size=1, max_size=12), st.integers(0, 12))
def test_every_group_is_ranked_once(noise: list[float], worst: int) -> None:
    by_name = dict(zip(names_of(len(noise)), noise, strict=True))
    ranked = rank_groups(list(by_name), lambda names: sum(by_name[name] for name in names), min(worst, len(noise)))
    assert sorted(group.name for group in ranked) == sorted(by_name)
    assert sum(group.one_off is not None for group in ranked) == min(worst, len(noise))


@given(scores, st.floats(-100, 100), st.integers(0, 2**32 - 1))
def test_the_same_added_to_all_classes_is_no_noise(reference: NDArray[np.float32], added: float, seed: int) -> None:
    meter = NoiseMeter([reference], 1)
    by_pixel = np.random.default_rng(seed).normal(0, 10, (1, 1, 3, 5))
    # In float32, so that nothing is rounded before it is measured.
    shifted = (reference.astype(np.float64) + added + by_pixel).astype(np.float32)
    rounding = float(np.spacing(np.abs(shifted).max()) ** 2 * shifted.size)
    power = float(((reference - reference.astype(np.float64).mean(axis=1, keepdims=True)) ** 2).sum())
    assert meter.noise([shifted]) * max(power, 1e-30) <= rounding


@given(scores, scores)
def test_noise_is_the_power_of_what_differs_between_classes(
    reference: NDArray[np.float32], found: NDArray[np.float32]
) -> None:
    def centered(values: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray(values - values.astype(np.float64).mean(axis=1, keepdims=True), np.float64)

    power = max(float((centered(reference) ** 2).sum()), 1e-30)
    expected = float(((centered(found) - centered(reference)) ** 2).sum()) / power
    assert NoiseMeter([reference], 1).noise([found]) == pytest.approx(expected, rel=1e-6)
    last = np.moveaxis(reference, 1, 3), np.moveaxis(found, 1, 3)
    assert NoiseMeter([last[0]], 3).noise([last[1]]) == pytest.approx(expected, rel=1e-6)


def test_noise_is_taken_over_all_frames() -> None:
    one = np.array([1, -1], np.float32).reshape(1, 2, 1, 1)
    meter = NoiseMeter([one, one], 1)
    assert meter.noise([one, 2 * one]) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="longer"):
        meter.noise([one])


def test_one_probability_is_compared_as_it_is() -> None:
    one = np.full((1, 1, 2, 2), 0.5, np.float32)
    assert NoiseMeter([one], 1).noise([one * 2]) == pytest.approx(1)


@pytest.mark.parametrize(("share", "decibels"), [(1.0, 0), (0.01, 20), (0.0, 200)])
def test_signal_to_noise_is_in_decibels(share: float, decibels: float) -> None:
    assert GroupNoise("a", share).signal_to_noise_db == pytest.approx(decibels)
