"""Timing alternatives in turn, so that a machine's noise hits all alike, and saying whether a claim holds."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2


def one_core() -> None:
    """Let OpenCV use one thread: what the claims are about."""
    cv2.setNumThreads(1)


def median_ms(alternatives: Mapping[str, Callable[[], object]], rounds: int = 31) -> dict[str, float]:
    """The median time of each alternative in milliseconds, one after the other in every round, after one to warm up."""
    times: dict[str, list[float]] = {name: [] for name in alternatives}
    for number in range(rounds + 1):
        for name, run in alternatives.items():
            started = time.perf_counter()
            run()
            if number:
                times[name].append((time.perf_counter() - started) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence of the README, what was measured, and whether that is enough."""

    text: str
    measured: str
    holds: bool


def conclude(*claims: Claim) -> None:
    """Print each claim with its verdict; exit with 1 where one fails."""
    for claim in claims:
        print(f"{'holds' if claim.holds else 'FAILS'}  {claim.text}: {claim.measured}")
    sys.exit(0 if all(claim.holds for claim in claims) else 1)
