"""The report as one HTML page that needs nothing else: figures, and the frames where float and INT8 differ most."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from math import inf
from typing import Any

import cv2
import numpy as np

from vidseg.export.quantization import WORST_FRAMES, Quantization
from vidseg.export.report import report_lines
from vidseg.runtime.engines import Engine
from vidseg.runtime.frame import Image
from vidseg.runtime.manifest import ClassSpec
from vidseg.runtime.overlay import Overlay, OverlayStyle
from vidseg.runtime.segmenter import Segmenter

_WIDTH_PX = 360

_STYLE = """
:root{color-scheme:light dark;--line:#8884;--bad:#dc2626;--good:#16a34a}
body{font:15px/1.5 system-ui,sans-serif;max-width:1180px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;overflow-wrap:anywhere}h2{font-size:1.15rem;margin-top:2.2rem}
table{border-collapse:collapse;width:100%}
td,th{padding:.25rem .6rem;border-bottom:1px solid var(--line);text-align:right}
td:first-child,th:first-child,td:last-child,th:last-child{text-align:left}
.scroll{overflow-x:auto}
@media(max-width:1000px){.scroll{background:linear-gradient(90deg,transparent 96%,#8888)}}
.verdict{font-size:1.15rem;padding:.7rem 1rem;border-left:5px solid var(--good);background:#16a34a18}
.verdict.float{border-color:var(--bad);background:#dc262618}
.legend span{padding-left:.3em;margin-right:.8em;white-space:nowrap;display:inline-block}
figure{margin:1rem 0}figure div{display:grid;grid-template-columns:repeat(auto-fit,minmax(220px,1fr));gap:.5rem}
figure img{width:100%;display:block}small{opacity:.75}
"""


def report_page(
    found: Quantization, document: dict[str, Any], title: str, engines: Sequence[Engine], classes: Sequence[ClassSpec]
) -> str:
    """The page.

    Args:
        found: what was measured.
        document: of `report_document`.
        title: the model's name.
        engines: the float model and the best quantized one, to draw the worst frames; none leaves pictures out.
        classes: with their colours.
    """
    lines = report_lines(found)
    parts = [
        f"<h1>INT8 report: {html.escape(title)}</h1>",
        f'<p class="verdict {found.verdict}">{html.escape(lines[0])}</p>',
        _frames(document),
        _targets(document),
        _classes(document),
        _pictures(found, engines, classes) if engines else "",
        _plans(document),
        _noise(document),
    ]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>INT8 report: {html.escape(title)}</title><style>{_STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


def _frames(document: dict[str, Any]) -> str:
    frames, machine = document["frames"], document["machine"]
    verification = frames["verification"]
    held_out = verification if isinstance(verification, str) else f"{len(verification)} held-out frames"
    gap = "" if frames["gap"] is None else f", at least {frames['gap']} frames away from any that was calibrated on"
    text = (
        f"Calibrated on {len(frames['calibration'])} frames of {frames['source']} ({frames['counts']}), verified on "
        f"{held_out}{gap}. Measured on {machine['cpu']}, {len(machine['cores'])} cores."
    )
    budget = document["budget"]
    allowed = f"{budget['max_disagreement']} % of the pixels with another class where float is sure"
    if document["float"]["mean_iou"] is not None:
        allowed = f"{budget['max_miou_drop']} points of mean IoU, and {budget['max_class_drop']} of any class"
    return f"<p>{html.escape(text)}</p><p>INT8 may lose {html.escape(allowed)}.</p>"


def _targets(document: dict[str, Any]) -> str:
    rows = []
    for engine, target in document["targets"].items():
        times = target["latency_ms"]
        outcome = "written" if target["written"] else f"not written: {target['reason']}"
        rows.append(
            [engine, f"{target['int8_share_of_macs']:.1%}"]
            + [f"{times[name]:.1f}" if name in times else "–" for name in ("float", "float-cut", "int8", "int8-cut")]
            + [*(_accuracy(target, document) if target["groups"] else "–––"), outcome]
        )
    rows += _exact_rows(document)
    head = ["Engine", "INT8 share of multiply-adds", "float ms", "float-cut ms", "int8 ms", "int8-cut ms", "Same class",
            "Other class where float is sure", "Mean IoU", "Outcome"]  # fmt: skip
    return "<h2>Variants</h2>" + _table(head, rows)


def _exact_rows(document: dict[str, Any]) -> list[list[str]]:
    """The graphs for TensorRT, which is not here: accuracy without latency."""
    master, dla = document["tensorrt"], document["dla"]
    results = {"TensorRT": master}
    if master["written"]:
        half = master["fp16"]
        refused = {"written": False, "reason": "loses more than the budget"}
        results["TensorRT, float16"] = refused if half is None else {**master, **half}
    if dla is not None:
        results["TensorRT, DLA"] = dla
    return [[name, *_exact_cells(found, document)] for name, found in results.items()]


def _exact_cells(found: dict[str, Any], document: dict[str, Any]) -> list[str]:
    if not found["written"]:
        return [*"––––––––", f"not written: {found['reason']}"]
    share = f"{found['int8_share_of_macs']:.1%}"
    return [share, *"––––", *_accuracy(found, document), "written; in exact arithmetic"]


def _accuracy(found: dict[str, Any], document: dict[str, Any]) -> list[str]:
    return [f"{found['agreement']:.2%}", f"{found['disagreement']:.3%}", _miou(found, document)]


def _miou(found: dict[str, Any], document: dict[str, Any]) -> str:
    return "–" if found["mean_iou"] is None else f"{found['mean_iou']:.4f} for {document['float']['mean_iou']:.4f}"


def _classes(document: dict[str, Any]) -> str:
    if document["float"]["iou"] is None:
        return ""
    columns = {"float": document["float"]["iou"]}
    columns |= {f"INT8 {engine}": found["iou"] for engine, found in document["targets"].items() if found["groups"]}
    if document["tensorrt"]["written"]:
        columns["INT8 TensorRT"] = document["tensorrt"]["iou"]
    if document["dla"] is not None and document["dla"]["written"]:
        columns["INT8 DLA"] = document["dla"]["iou"]
    rows = [
        [name, *(_iou(values[number]) for values in columns.values())]
        for number, name in enumerate(document["classes"])
    ]
    return "<h2>IoU by class</h2>" + _table(["Class", *columns], rows)


def _iou(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _plans(document: dict[str, Any]) -> str:
    compiled = document["tensorrt_rtx"]
    if not compiled:
        return ""
    lines = [compiled["refused"]] if "refused" in compiled else []
    for plan in compiled.get("plans", ()):
        size = f"plan of {plan['plan_bytes'] / 2**20:.1f} MiB, built in {plan['build_s']} s"
        lines.append(f"{plan['summary'] or 'no audit'}; {size}")
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    version = html.escape(compiled.get("version", ""))
    return f"<h2>TensorRT-RTX {version}, compiled with no GPU</h2><ul>{items}</ul>"


def _noise(document: dict[str, Any]) -> str:
    groups = document["groups"]
    total = sum(group["macs"] for group in groups) or 1
    rows = [
        [
            group["name"],
            "–" if group["signal_to_noise_db"] is None else f"{group['signal_to_noise_db']:.1f}",
            f"{group['macs'] / total:.1%}",
            ", ".join(f"{found['method']} {found['amax']:.3g}" for found in group["ranges"].values()),
            ", ".join(group["int8_in"]) or "nowhere",
            group["float_because"] or "",
        ]
        for group in sorted(groups, key=lambda group: group["signal_to_noise_db"] or inf)
    ]
    head = ["Layer", "Signal to noise, dB", "Share of multiply-adds", "Range", "INT8 in", "Float because"]
    return "<h2>Layers, the noisiest first</h2>" + _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{cells}</tr>{body}</table></div>'


def _pictures(found: Quantization, engines: Sequence[Engine], classes: Sequence[ClassSpec]) -> str:
    shown = found.shown
    if shown is None:
        return ""
    overlay = Overlay(tuple(classes), OverlayStyle(alpha=0.6, legend=False))
    segmenters = [Segmenter(engine, found.gate.fit) for engine in engines]
    figures = []
    for number in shown.comparison.worst_frames(WORST_FRAMES):
        image = found.pictures[number]
        results = [segmenter(image) for segmenter in segmenters]
        different = results[0].at_frame_size() != results[-1].at_frame_size()
        pictures = [image, *(overlay.draw(result) for result in results), _marked(image, different)]
        share = shown.comparison.frame_disagreement[number]
        caption = f"Verification frame {number}: {share:.2%} of the pixels differ where float is sure"
        names = ("input", "float", "INT8", "differences")
        images = "".join(_picture(name, picture) for name, picture in zip(names, pictures, strict=True))
        figures.append(f"<figure><figcaption>{caption}</figcaption><div>{images}</div></figure>")
    colors = "".join(
        f'<span style="border-left:1em solid rgb{tuple(entry.color_rgb)}">{html.escape(entry.name)}</span> '
        for entry in classes
    )
    return f'<h2>Where they differ most</h2><p class="legend">{colors}</p>' + "".join(figures)


def _marked(image: Image, different: np.ndarray[Any, np.dtype[np.bool_]]) -> Image:
    gray = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8) // 2
    marked = np.stack([gray, gray, gray], axis=-1)
    spread = cv2.dilate(different.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0  # single pixels would not be seen
    marked[spread] = (60, 60, 255)
    return marked


def _picture(name: str, picture: Image) -> str:
    scale = _WIDTH_PX / picture.shape[1]
    if scale < 1:
        size_wh = (_WIDTH_PX, round(picture.shape[0] * scale))
        picture = np.asarray(cv2.resize(picture, size_wh, interpolation=cv2.INTER_AREA), np.uint8)
    data = base64.b64encode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()).decode()
    return f'<span><img alt="{name}" src="data:image/jpeg;base64,{data}"><small>{name}</small></span>'
