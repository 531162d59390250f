"""Claim: the confusion matrix takes at least 200 million pixels a second on one core."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np

from benchmarks.interleave import Claim, conclude, median_ms, one_core
from vidseg.calibration.metrics import ConfusionMatrix
from vidseg.runtime.sources.street.render import Street

MIN_MPIX_S = 200.0


def main() -> None:
    """Measure and conclude."""
    one_core()
    _, label = Street(3, (1280, 720)).render(30, 1.0)
    prediction = np.roll(label, 3, axis=1)
    matrix = ConfusionMatrix(19)
    alternatives: dict[str, Callable[[], object]] = {
        "vidseg": lambda: matrix.add(label, prediction),
        "bincount": lambda: np.bincount(19 * label.ravel().astype(int) + prediction.ravel(), minlength=361),
    }
    if importlib.util.find_spec("sklearn"):
        from sklearn.metrics import confusion_matrix

        alternatives["scikit-learn"] = lambda: confusion_matrix(label.ravel(), prediction.ravel(), labels=range(19))
    times = median_ms(alternatives, 15)
    rates = {name: label.size / time_ms / 1e3 for name, time_ms in times.items()}
    for name, rate in rates.items():
        print(f"{name:<13} {rate:7.1f} MPix/s   {rate / rates['vidseg']:.3f} of vidseg")
    rate = rates["vidseg"]
    conclude(Claim(f"confusion matrix >= {MIN_MPIX_S:g} MPix/s", f"{rate:.0f} MPix/s", rate >= MIN_MPIX_S))


if __name__ == "__main__":
    main()
