"""Which engine and variant is fastest here: measured, and remembered for the next start."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import msgspec

from vidseg.runtime.bundle import Bundle
from vidseg.runtime.cache import private_folder
from vidseg.runtime.engines.bench import BenchOptions, BenchRow, bench
from vidseg.runtime.engines.candidates import Candidate, candidates_of, machine_fingerprint
from vidseg.runtime.engines.opening import GpuUse
from vidseg.runtime.errors import ConfigurationError, DeviceError, EngineError

log = logging.getLogger(__name__)

MIN_GAIN = 0.05
"""A choice is replaced only by one that is faster by more than this share: measured times differ by chance."""

_MAX_FILE_BYTES = 1 << 20


class ChoiceMemory:
    """Choices by bundle and machine, in a file of the cache folder. Any trouble with it costs a measurement, no more.

    Args:
        folder: made where it is missing; has to be the user's own.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "engine-choices.json"

    def recall(self, bundle: Bundle) -> Candidate | None:
        """The choice for this bundle, machine and set of candidates; None where there is none."""
        key = _key(bundle)
        try:
            return msgspec.convert(self._read().get(key), Candidate)
        except (ConfigurationError, msgspec.ValidationError):
            return None

    def remember(self, bundle: Bundle, candidate: Candidate) -> bool:
        """Keep a choice; False where that is not possible. The file is replaced as a whole: the last process wins."""
        try:
            choices = self._read() | {_key(bundle): asdict(candidate)}
            part = self._file.with_name(f".{self._file.name}.{os.getpid()}")
            part.write_text(json.dumps(choices), encoding="utf-8")
            part.replace(self._file)
        except (ConfigurationError, OSError) as error:
            log.warning("the choice of the engine is not remembered: %s", error)
            return False
        return True

    def _read(self) -> dict[str, object]:
        private_folder(self._folder)
        try:
            with self._file.open("rb") as stream:
                choices = json.loads(stream.read(_MAX_FILE_BYTES))
        except (OSError, ValueError, RecursionError):
            return {}
        return choices if isinstance(choices, dict) else {}


def choose_engine(
    bundle: Bundle, memory: ChoiceMemory | None = None, options: BenchOptions | None = None, gpu: GpuUse | None = None
) -> Candidate:
    """The fastest engine and variant that reproduces the bundle's samples here.

    A remembered choice is taken as it is. Otherwise all are measured, some seconds, and the winner is remembered.

    Args:
        bundle: the model.
        memory: of choices.
        options: how long to measure.
        gpu: what engines on a GPU are opened for; with its folder of plans, none is built twice.

    Raises:
        EngineError: none of them works here.
    """
    remembered = memory.recall(bundle) if memory else None
    if remembered:
        return remembered
    rows = bench(bundle, candidates_of(bundle), options, load=lambda candidate: candidate.open(bundle, gpu=gpu))
    chosen = fastest(rows)
    if memory:
        memory.remember(bundle, chosen)
    return chosen


def fastest(rows: Sequence[BenchRow], remembered: Candidate | None = None) -> Candidate:
    """The row with the least median latency among those that are right; the remembered one unless it loses clearly.

    Raises:
        EngineError: there is none.
        DeviceError: there is none, because the device fails them all.
    """
    right = [row for row in rows if row.error is None and row.agreement >= row.required]
    if not right:
        found = [row.error or f"{row.agreement:.3%} of the samples' pixels" for row in rows]
        reasons = "; ".join(f"{row.candidate}: {text.rstrip('.')}" for row, text in zip(rows, found, strict=True))
        kind = DeviceError if rows and all(row.device_failed for row in rows) else EngineError
        what = "no engine works here" if all(row.error for row in rows) else "no engine gives the right classes here"
        raise kind(what, reasons or "none installed", "Try `vidseg doctor`.")
    best = min(right, key=lambda row: row.latency_p50_ms)
    kept = next((row for row in right if row.candidate == remembered), None)
    if kept and not is_clearly_faster(best.latency_p50_ms, kept.latency_p50_ms):
        return kept.candidate
    return best.candidate


def is_clearly_faster(time_ms: float, than_ms: float) -> bool:
    """True for a gain of more than `MIN_GAIN`."""
    return time_ms < than_ms * (1 - MIN_GAIN)


def _key(bundle: Bundle) -> str:
    parts = {
        "members": bundle.manifest.members,
        "machine": machine_fingerprint(),
        "candidates": [str(candidate) for candidate in candidates_of(bundle)],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
