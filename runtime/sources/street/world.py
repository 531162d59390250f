"""What stands and moves in the street. Everything follows from the seed: nothing is stored, any moment can be asked.

Coordinates are metres: x to the right of the road's middle, y up, z along the street. The street repeats in lots; what
a lot holds is drawn from a generator seeded with the street's seed and the lot's number.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

ROAD_HALF_WIDTH = 4.6
FACADE_X = 9.0
LOT_LENGTH = 13.0
VIEW_BEHIND = 14.0
VIEW_AHEAD = 150.0
WALKERS_AHEAD = 32.0  # farther off, nobody is large enough to be drawn

Color: TypeAlias = tuple[float, float, float]  # blue, green, red, 0..255, in full daylight

FACADES: tuple[Color, ...] = (
    (120, 142, 168), (98, 112, 150), (150, 160, 170), (112, 128, 138), (88, 104, 128), (140, 150, 186), (126, 120, 118),
)  # fmt: skip
PAINTS: tuple[Color, ...] = (
    (40, 36, 34), (212, 210, 205), (60, 50, 170), (150, 90, 40), (120, 118, 114), (60, 110, 60), (70, 160, 200),
)  # fmt: skip
CLOTHES: tuple[Color, ...] = (
    (60, 40, 40), (40, 60, 190), (170, 120, 60), (60, 150, 200), (200, 190, 185), (120, 60, 130), (70, 120, 70),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Building:
    """A house front from `z` to `z + length`, on the side of the sign of `x`."""

    x: float
    z: float
    length: float
    height: float
    color: Color
    floors: int
    columns: int


@dataclass(frozen=True, slots=True)
class Tree:
    """A trunk and a crown of overlapping balls, each (dx, dy, radius, shade)."""

    x: float
    z: float
    trunk: float
    balls: tuple[tuple[float, float, float, float], ...]
    color: Color


@dataclass(frozen=True, slots=True)
class Car:
    """A car whose rear (or front, where it comes towards us) is at `z`."""

    x: float
    z: float
    color: Color
    oncoming: bool
    height: float


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who walks; `stride` is the swing of the legs, -1..1."""

    x: float
    z: float
    height: float
    shirt: Color
    trousers: Color
    stride: float


Thing: TypeAlias = Building | Tree | Car | Person


@dataclass(frozen=True, slots=True)
class Moment:
    """The street at one time, as the camera sees it.

    Attributes:
        things: in no order.
        camera_x, camera_height, camera_z: the camera's place.
        pitch: share of the picture's height by which the horizon is above its usual place.
        daylight: 0 dusk .. 1 noon.
        exposure: factor of all brightness.
    """

    things: tuple[Thing, ...]
    camera_x: float
    camera_height: float
    camera_z: float
    pitch: float
    daylight: float
    exposure: float


class World:
    """A street that goes on for ever.

    Args:
        seed: of everything in it.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        traits = random.Random(f"{seed} traits")
        self._speed = traits.uniform(5.0, 9.0)
        self._daylight = traits.uniform(0.15, 1.0)
        self._phase = traits.uniform(0, 6.28)
        self._oncoming_gap = traits.uniform(26, 44)
        self._oncoming_speed = traits.uniform(5, 9)
        self._leader_gap = traits.uniform(9, 18)
        self._has_leader = traits.random() < 0.6
        self._people_gap = traits.uniform(5.5, 11)
        self._start_z = traits.uniform(0, 1000)
        self._lot = lru_cache(maxsize=256)(self._make_lot)

    def at(self, time_s: float) -> Moment:
        """The street after `time_s` seconds of driving."""
        camera_z = self._start_z + self._speed * time_s
        phase = self._phase
        cloud = 0.5 + 0.5 * math.sin(0.11 * time_s + phase)
        return Moment(
            things=tuple(self._things(time_s, camera_z)),
            camera_x=1.6 + 0.35 * math.sin(0.35 * time_s + phase),
            camera_height=1.55 + 0.03 * math.sin(2.1 * time_s),
            camera_z=camera_z,
            pitch=0.012 * math.sin(0.9 * time_s + phase) + 0.004 * math.sin(7.0 * time_s),
            daylight=self._daylight,
            exposure=1.0 + 0.12 * (cloud - 0.5),
        )

    def _things(self, time_s: float, camera_z: float) -> Iterator[Thing]:
        first = math.floor((camera_z - VIEW_BEHIND) / LOT_LENGTH)
        last = math.floor((camera_z + VIEW_AHEAD) / LOT_LENGTH)
        for number in range(first, last + 1):
            yield from self._lot(number)
        yield from self._traffic(time_s, camera_z)
        yield from self._walkers(time_s, camera_z)

    def _make_lot(self, number: int) -> tuple[Thing, ...]:
        rng = random.Random(f"{self._seed} lot {number}")
        things: list[Thing] = []
        start = number * LOT_LENGTH
        for side in (-1, 1):
            if rng.random() < 0.86:
                height = rng.uniform(6.5, 17)
                setback = rng.choice((0, 0, 0.6, 1.4))
                floors = max(2, round(height / 3.2))
                color = rng.choice(FACADES)
                things.append(
                    Building(side * (FACADE_X + setback), start, LOT_LENGTH, height, color, floors, rng.randint(3, 5))
                )
            else:
                things += [_tree(rng, side * rng.uniform(10, 14), start + rng.uniform(2, 11), 1.5) for _ in range(3)]
            if rng.random() < 0.6:
                things.append(_tree(rng, side * 5.6, start + rng.uniform(1, 12), 1.0))
            if rng.random() < 0.55:
                parked_x = side * (ROAD_HALF_WIDTH - 1.1)
                things.append(
                    Car(parked_x, start + rng.uniform(0, 8), rng.choice(PAINTS), side < 0, rng.uniform(1.4, 1.8))
                )
        return tuple(things)

    def _traffic(self, time_s: float, camera_z: float) -> Iterator[Car]:
        for number, z in _stream(self._oncoming_gap, -self._oncoming_speed, time_s, camera_z, VIEW_AHEAD):
            rng = random.Random(f"{self._seed} car {number}")
            yield Car(-1.4, z + rng.uniform(-6, 6), rng.choice(PAINTS), oncoming=True, height=rng.uniform(1.4, 1.9))
        if self._has_leader:
            rng = random.Random(f"{self._seed} leader")
            gap = self._leader_gap + 4 * math.sin(0.23 * time_s + self._phase)
            yield Car(
                1.5 + 0.2 * math.sin(0.4 * time_s), camera_z + gap, rng.choice(PAINTS), oncoming=False, height=1.5
            )

    def _walkers(self, time_s: float, camera_z: float) -> Iterator[Person]:
        for side, speed in ((-1, 1.3), (1, -1.2), (1, 1.4), (-1, -1.1)):
            gap = self._people_gap * (1.7 if speed < 0 else 1.3)
            for number, z in _stream(gap, speed, time_s, camera_z, WALKERS_AHEAD):
                rng = random.Random(f"{self._seed} walker {side} {speed} {number}")
                x = side * rng.uniform(5.2, 8.0)
                if rng.random() < 0.08:  # crosses the street
                    x = 5.0 * math.sin(0.35 * time_s + rng.uniform(0, 6.28))
                yield Person(
                    x,
                    z + rng.uniform(-2, 2),
                    rng.uniform(1.55, 1.95),
                    rng.choice(CLOTHES),
                    rng.choice(CLOTHES),
                    math.sin(6.0 * time_s + rng.uniform(0, 6.28)),
                )


def _stream(gap: float, speed: float, time_s: float, camera_z: float, ahead: float) -> Iterator[tuple[int, float]]:
    """An endless column moving at `speed`: the numbers and places of those near the camera."""
    offset = speed * time_s
    first = math.ceil((camera_z - VIEW_BEHIND - offset) / gap)
    last = math.floor((camera_z + ahead - offset) / gap)
    return ((number, number * gap + offset) for number in range(first, last + 1))


def _tree(rng: random.Random, x: float, z: float, size: float) -> Tree:
    trunk = rng.uniform(1.9, 2.6) * size
    balls = tuple(
        (
            rng.uniform(-1.1, 1.1) * size,
            trunk + rng.uniform(0.2, 2.6) * size,
            rng.uniform(0.8, 1.35) * size,
            rng.uniform(0.72, 1.15),
        )
        for _ in range(9)
    )
    color = (rng.uniform(35, 60), rng.uniform(95, 130), rng.uniform(55, 95))
    return Tree(x, z, trunk, tuple(sorted(balls, key=lambda ball: ball[3])), color)
