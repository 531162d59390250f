"""The report of a quantization: everything that was measured, as plain values and as one page."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict
from typing import Any

import msgspec

from vidseg.calibration.gate import Comparison, worst_class
from vidseg.export.quantization import Quantization
from vidseg.export.quantized_model import DlaResult, MasterResult, TargetResult
from vidseg.runtime.engines.candidates import machine_fingerprint


def report_document(found: Quantization) -> dict[str, Any]:
    """All of it as plain values for JSON. Times are of the machine that it names."""
    model, gate = found.model, found.gate
    best = found.best
    return {
        "format": 1,
        "verdict": found.verdict,
        "chosen": best.engine if best else None,
        "int8_share_of_macs": round(model.share_of_macs(best.groups), 4) if best else 0.0,
        "machine": machine_fingerprint(),
        "budget": asdict(gate.budget),
        "frames": found.frames,
        "classes": list(gate.names),
        "float": _comparison(gate.float_result),
        "targets": {target.engine: _target(found, target) for target in model.targets},
        "tensorrt": _master(found),
        "dla": _dla(found),
        "candidates": [{"groups": count, "faults": lines} for count, lines in model.tried],
        "groups": _groups(found),
        "tensorrt_rtx": found.compiled,
        "plan": msgspec.to_builtins(found.plan),
    }


def report_lines(found: Quantization) -> list[str]:
    """The outcome in a few lines for a terminal."""
    model, best = found.model, found.best
    if best is None:
        lines = ["Verdict: float. " + (_reason_for_float(found))]
    else:
        share = model.share_of_macs(best.groups)
        gain = best.fastest_float_ms / best.fastest_ms("int8")
        times = f"{gain:.2f} times the speed of the fastest float here, in {best.engine}"
        lines = [f"Verdict: {found.verdict}. {share:.0%} of the multiply-adds in INT8, {times}{_floats(found, best)}"]
    for target in model.targets:
        loss = _loss(found, target)
        state = "written" if target.ships else f"not written: {_reason(target)}"
        times = f"float {target.fastest_ms('float'):.1f} ms"
        if target.groups:
            times += f", INT8 {target.fastest_ms('int8'):.1f} ms, {loss}"
        lines.append(f"{target.engine}: {times}; {state}")
    if found.model.no_dla:
        lines.append(f"DLA: not written: {found.model.no_dla}")
    for plan in found.compiled.get("plans", ()):
        what = "this version's log cannot be audited" if plan["audit"] is None else plan["summary"]
        lines.append(f"TensorRT-RTX: plan of {plan['plan_bytes'] / 2**20:.1f} MiB. {what}")
    if "refused" in found.compiled:
        lines.append(f"TensorRT-RTX: {found.compiled['refused']}")
    return lines


def _floats(found: Quantization, best: TargetResult) -> str:
    """How many layers could be quantized and are not, by reason."""
    left = [name for name in found.model.candidates if name not in best.groups]
    reasons = Counter(_why_float_in(best, name) for name in left)
    shown = "; ".join(
        f"{count} {'layer' if count == 1 else 'layers'} in float, {why}" for why, count in reasons.items()
    )
    return f"; {shown}" if shown else ""


def _reason_for_float(found: Quantization) -> str:
    if not found.model.targets:
        return "No engine is installed."
    if not found.model.accurate:
        return "No set of INT8 layers keeps the accuracy."
    reasons = sorted({_reason(target) for target in found.model.targets if target.groups})
    return f"INT8 {' and '.join(reasons)}." if reasons else "No set of INT8 layers keeps the accuracy in any engine."


def _reason(target: TargetResult) -> str:
    if not target.groups:
        return "the plan names no layer" if target.planned else "no set of INT8 layers keeps the accuracy"
    if target.faults:
        return f"loses more than the budget: {'; '.join(target.faults)}"
    return f"is not clearly faster than the fastest float here, {target.fastest_float_ms:.1f} ms"


def _loss(found: Quantization, target: TargetResult) -> str:
    reference, comparison = found.gate.float_result, target.comparison
    if reference.mean_iou is None or comparison.mean_iou is None:
        return f"{comparison.disagreement:.2%} of the pixels differ where float is sure"
    return f"mean IoU {comparison.mean_iou:.4f} for {reference.mean_iou:.4f}"


def _target(found: Quantization, target: TargetResult) -> dict[str, Any]:
    worst, drop = worst_class(target.comparison, found.gate.float_result)
    return {
        "written": target.ships,
        "reason": None if target.ships else _reason(target),
        "faults": list(target.faults),
        "int8_share_of_macs": round(found.model.share_of_macs(target.groups), 4),
        "groups": len(target.groups),
        "float_because_no_gain": list(target.useless),
        "latency_ms": {name: round(ms, 3) for name, ms in target.latency_ms.items()},
        "fastest_float_ms": round(target.fastest_float_ms, 3),
        "worst_class": None if worst is None else {"name": found.gate.names[worst], "drop_points": round(drop, 3)},
        **_comparison(target.comparison),
    }


def _master(found: Quantization) -> dict[str, Any]:
    master = found.model.master
    if master is None:
        return {"written": False, "reason": found.model.no_master}
    half = None if master.half_comparison is None else _comparison(master.half_comparison)
    return {**_written(found, master), "fp16": half}


def _dla(found: Quantization) -> dict[str, Any] | None:
    """None where nobody asked."""
    if found.model.no_dla:
        return {"written": False, "reason": found.model.no_dla}
    return None if found.model.dla is None else _written(found, found.model.dla)


def _written(found: Quantization, result: MasterResult | DlaResult) -> dict[str, Any]:
    return {
        "written": True,
        "reason": None,
        "int8_share_of_macs": round(found.model.share_of_macs(result.groups), 4),
        "groups": len(result.groups),
        **_comparison(result.comparison),
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "frames": comparison.frames,
        "agreement": round(comparison.agreement, 6),
        "disagreement": round(comparison.disagreement, 6),
        "mean_iou": _number(comparison.mean_iou),
        "iou": None if comparison.iou is None else [_number(value) for value in comparison.iou],
        "boundary_f": _number(comparison.boundary_f),
        "worst_frame": int(comparison.frame_disagreement.argmax()),
    }


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(float(value), 6)


def _groups(found: Quantization) -> list[dict[str, Any]]:
    """Every group with its noise, range and where it is quantized or why not."""
    model = found.model
    noise = {group.name: group for group in model.noise}
    return [
        {
            "name": group.name,
            "operator": group.operator,
            "depthwise": group.depthwise,
            "macs": group.macs,
            "signal_to_noise_db": _number(noise[group.name].signal_to_noise_db) if group.name in noise else None,
            "one_off": _number(noise[group.name].one_off) if group.name in noise else None,
            "ranges": {
                tensor: {"method": model.table.tensors[tensor].method, "amax": model.table.tensors[tensor].chosen}
                for tensor in group.inputs
                if tensor in model.table.tensors
            },
            "bias_corrected": group.name in model.corrections,
            "int8_in": [target.engine for target in model.targets if group.name in target.groups],
            "float_because": _why_float(found, group.name),
        }
        for group in model.groups
    ]


def _why_float(found: Quantization, name: str) -> str | None:
    """In which engines a layer is float, and why; None where it is quantized in all of them."""
    if name not in found.model.candidates:
        return "too narrow, too small, or without a weight: nothing to gain"
    reasons = {
        target.engine: _why_float_in(target, name) for target in found.model.targets if name not in target.groups
    }
    if len(set(reasons.values())) == 1 and len(reasons) == len(found.model.targets):
        return next(iter(reasons.values()))
    return "; ".join(f"{engine}: {reason}" for engine, reason in reasons.items()) or None


def _why_float_in(target: TargetResult, name: str) -> str:
    if any(name in members for members in target.useless.values()):
        return "gains nothing"
    return "not in the plan" if target.planned else "costs too much accuracy"
