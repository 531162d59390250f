"""The pipeline's statistics as a person and as a program read them."""

from __future__ import annotations

import math
from typing import Any

from vidseg.runtime.pipeline.statistics import Statistics


def status_line(statistics: Statistics) -> str:
    """Frames a second, age, drops by cause, and the median time of each stage, in one line.

    What matters most comes first: a narrow terminal cuts the end off.
    """
    ledger = statistics.ledger
    parts = [f"{statistics.fps:5.1f} fps", f"{ledger.resolved} frames"]
    if not math.isnan(statistics.age_p50_ms):
        parts.append(f"age p50 {statistics.age_p50_ms:.0f} p99 {statistics.age_p99_ms:.0f} ms")
    drops = [f"{count} {cause.replace('_', ' ')}" for cause, count in sorted(ledger.dropped.items())]
    late = sum(account.dropped for account in ledger.sinks.values())
    if late:
        drops.append(f"{late} at sinks")
    parts.append("dropped " + (", ".join(drops) or "none"))
    if statistics.hanging:
        parts.append(f"{', '.join(statistics.hanging)} hangs")
    if statistics.detached:
        parts.append(f"{', '.join(statistics.detached)} failed")
    if statistics.late:
        parts.append(f"{statistics.late} late")
    if statistics.stage_ms:
        parts.append(" ".join(f"{stage} {time_ms:.1f}" for stage, time_ms in statistics.stage_ms.items()) + " ms")
    return "  |  ".join(parts)


def hud_lines(statistics: Statistics) -> tuple[str, ...]:
    """The short form for a corner of the picture."""
    if math.isnan(statistics.age_p50_ms):
        return ()
    dropped = sum(statistics.ledger.dropped.values())
    return (f"{statistics.fps:.1f} fps  age {statistics.age_p50_ms:.0f} ms  dropped {dropped}",)


def status_document(statistics: Statistics, *, final: bool) -> dict[str, Any]:
    """The same as plain numbers for JSON. NaN becomes None."""
    ledger = statistics.ledger
    return {
        "final": final,
        "elapsed_s": round(statistics.elapsed_s, 3),
        "fps": round(statistics.mean_fps if final else statistics.fps, 3),
        "late": statistics.late,
        "hanging": list(statistics.hanging),
        "detached": list(statistics.detached),
        "age_p50_ms": _number(statistics.age_p50_ms),
        "age_p99_ms": _number(statistics.age_p99_ms),
        "stage_ms": {stage: round(time_ms, 3) for stage, time_ms in statistics.stage_ms.items()},
        "captured": ledger.captured,
        "resolved": ledger.resolved,
        "in_flight": ledger.in_flight,
        "dropped": ledger.dropped,
        "sinks": {
            name: {
                "offered": account.offered,
                "written": account.written,
                "dropped": account.dropped,
                "failed": account.failed,
                "queued": account.queued,
            }
            for name, account in ledger.sinks.items()
        },
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 3)
