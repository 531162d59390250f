"""A group that is rounded and gains nothing costs accuracy for no time; a wrong time picks the wrong groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from tests.export.quantizable import KINDS, quantizable
from vidseg.export import timing
from vidseg.export.graph import Graph
from vidseg.export.groups import FusionGroup, find_groups
from vidseg.export.timing import families_of, latencies_ms, without_useless
from vidseg.runtime.decoding import Outputs, Prediction
from vidseg.runtime.engines import Engine, predict
from vidseg.runtime.engines.fake import FakeEngine, FakeService
from vidseg.runtime.errors import EngineError

SIZE_WH = (8, 6)
IMAGE = np.zeros((SIZE_WH[1], SIZE_WH[0], 3), np.uint8)


def group(name: str, *, positions: int = 100, channels: int = 32, depthwise: bool = False) -> FusionGroup:
    return FusionGroup(
        name=name,
        operator="Conv",
        inputs=(f"{name}/in",),
        weight=f"{name}/weight",
        skip=None,
        result=name,
        macs=1000,
        channels_in=channels,
        channels_out=channels,
        depthwise=depthwise,
        positions=positions,
    )


GROUPS = [
    group("dense 1"),
    group("dense 2"),
    group("small", positions=25),
    group("depthwise", depthwise=True),
    group("narrow", channels=8),
]


class Opened(FakeEngine):
    """Remembers that it was closed."""

    def __init__(self, service_ms: float, closed: list[float]) -> None:
        super().__init__(SIZE_WH, FakeService(service_ms))
        self._service_ms = service_ms
        self._list = closed

    def close(self) -> None:
        super().close()
        self._list.append(self._service_ms)


def service(ms: float) -> Callable[[], Engine]:
    return lambda: FakeEngine(SIZE_WH, FakeService(ms))


def opener_of(
    base_ms: float, gain_ms: dict[str, float], asked: list[list[str]] | None = None
) -> Callable[[Sequence[FusionGroup]], Callable[[], Engine]]:
    """A network of `base_ms` in float, of which quantizing each group takes so much off."""

    def opener(groups: Sequence[FusionGroup]) -> Callable[[], Engine]:
        if asked is not None:
            asked.append([group.name for group in groups])
        return service(base_ms - sum(gain_ms.get(group.name, 0.0) for group in groups))

    return opener


def test_latencies_are_those_of_the_engines() -> None:
    found = latencies_ms({"slow": service(8), "fast": service(3)}, IMAGE, rounds=3, block=2)
    assert list(found) == ["slow", "fast"]
    assert 8 <= found["slow"] < 16
    assert 3 <= found["fast"] < 8


def test_engines_take_turns_and_each_turn_warms_up() -> None:
    calls: list[str] = []

    def opener(name: str) -> Callable[[], Engine]:
        class Noted(FakeEngine):
            def decode(self, outputs: Outputs) -> Prediction:
                calls.append(name)
                return super().decode(outputs)

        return lambda: Noted(SIZE_WH)

    latencies_ms({"a": opener("a"), "b": opener("b")}, IMAGE, rounds=2, block=3)
    assert "".join(calls) == "aaaabbbb" * 2


def test_slow_engines_are_timed_fewer_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "MAX_SECONDS", 0.0)
    runs: list[None] = []

    class Noted(FakeEngine):
        def decode(self, outputs: Outputs) -> Prediction:
            runs.append(None)
            return super().decode(outputs)

    latencies_ms({"a": lambda: Noted(SIZE_WH)}, IMAGE, rounds=50, block=1)
    assert len(runs) == 2 * timing.MIN_ROUNDS


def test_a_median_is_not_moved_by_one_hiccup() -> None:
    class Hiccup(FakeEngine):
        def __init__(self) -> None:
            super().__init__(SIZE_WH, FakeService(1))
            self._slow = FakeEngine(SIZE_WH, FakeService(40))
            self._count = 0

        def decode(self, outputs: Outputs) -> Prediction:
            self._count += 1
            if self._count == 2:
                predict(self._slow, IMAGE)
            return super().decode(outputs)

    assert latencies_ms({"a": Hiccup}, IMAGE, rounds=3, block=5)["a"] < 10


def test_engines_are_closed_even_if_one_does_not_open() -> None:
    closed: list[float] = []

    def broken() -> Engine:
        raise EngineError("refused")

    with pytest.raises(EngineError):
        latencies_ms({"fine": lambda: Opened(2.0, closed), "broken": broken}, IMAGE)
    assert closed == [2.0]
    latencies_ms({"one": lambda: Opened(0.0, closed), "other": lambda: Opened(1.0, closed)}, IMAGE, 1, 1)
    assert closed == [2.0, 1.0, 0.0]


def test_families_are_of_one_kind_and_size() -> None:
    families = families_of(GROUPS)
    assert {name: [group.name for group in members] for name, members in families.items()} == {
        "dense Conv of 100 positions": ["dense 1", "dense 2"],
        "dense Conv of 25 positions": ["small"],
        "depthwise Conv of 100 positions": ["depthwise"],
        "narrow Conv of 100 positions": ["narrow"],
    }


def test_operators_have_families_of_their_own_and_a_narrow_depthwise_one_is_depthwise() -> None:
    products = [replace(GROUPS[0], name="product", operator="MatMul"), replace(GROUPS[3], name="thin", channels_in=4)]
    families = families_of([*GROUPS, *products])
    assert [group.name for group in families["dense MatMul of 100 positions"]] == ["product"]
    assert [group.name for group in families["depthwise Conv of 100 positions"]] == ["depthwise", "thin"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_group_is_in_one_family(kind: str) -> None:
    groups = find_groups(Graph(quantizable(kind)))
    members = [member for family in families_of(groups).values() for member in family]
    assert sorted(member.name for member in members) == sorted(one.name for one in groups)


def test_families_that_gain_nothing_are_left_out_together() -> None:
    gain = {"dense 1": 3.0, "dense 2": 3.0, "small": 2.0, "depthwise": -2.0, "narrow": -1.5}
    kept, useless = without_useless(GROUPS, opener_of(14, gain), IMAGE)
    assert [group.name for group in kept] == ["dense 1", "dense 2", "small"]
    assert sorted(useless) == ["depthwise Conv of 100 positions", "narrow Conv of 100 positions"]


def test_families_that_all_gain_stay() -> None:
    gain = dict.fromkeys((group.name for group in GROUPS), 2.0)
    asked: list[list[str]] = []
    kept, useless = without_useless(GROUPS, opener_of(16, gain, asked), IMAGE)
    assert (kept, useless) == (GROUPS, {})
    assert len(asked) == 5  # the whole, and each family left out


def test_families_that_gain_only_together_stay() -> None:
    """Each one alone can go without a loss, because the other still does it; both together cannot."""

    def opener(groups: Sequence[FusionGroup]) -> Callable[[], Engine]:
        return service({0: 14, 1: 4, 2: 6}[len(groups)])

    groups = [GROUPS[0], GROUPS[3]]
    assert without_useless(groups, opener, IMAGE) == (groups, {})


def test_nothing_stays_where_nothing_gains() -> None:
    kept, useless = without_useless(GROUPS, opener_of(10, dict.fromkeys((one.name for one in GROUPS), -4.0)), IMAGE)
    assert kept == []
    assert len(useless) == 4


def test_one_family_is_not_timed() -> None:
    asked: list[list[str]] = []
    assert without_useless(GROUPS[:2], opener_of(5, {}, asked), IMAGE) == (GROUPS[:2], {})
    assert asked == []
