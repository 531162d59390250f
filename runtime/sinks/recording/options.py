"""What is recorded, when, and how much of it is kept."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, TypeAlias, get_args
from urllib.parse import parse_qsl

from vidseg.runtime.errors import UsageError

Shown: TypeAlias = Literal["overlay", "frame"]

SCHEME = "record://"

FORM = "record://FOLDER#segment_s=60&quota_gib=20&min_free_mib=500&event=NAME&pre_s=5&post_s=10&picture=overlay|frame"

SEGMENT_BYTES_PER_S = 512_000
"""Of one source, to tell a quota that makes no sense: 720p at 30 frames a second, 17 KiB each, see `mp4.ENCODERS`."""

_KEYFRAME_S = 1.0


@dataclass(frozen=True, slots=True)
class RecordingOptions:
    """How a recording is made.

    Attributes:
        segment_s: a file is at most that long, in seconds.
        quota_gib: all segments together are never larger; the oldest finished ones go. None: nothing is deleted.
        min_free_mib: what has to stay free on the disk; the recording stops before.
        events: names of rules; recorded is while one of them is active. Empty: always.
        pre_s: seconds before an event's start that are recorded as well.
        post_s: seconds behind its end.
        pre_mib: memory for the seconds before, for each source.
        picture: with the classes in colour, or the frame as it was captured.

    Raises:
        UsageError: a value is out of its range, or the quota does not hold one segment.
    """

    segment_s: float = 60.0
    quota_gib: float | None = None
    min_free_mib: float = 500.0
    events: tuple[str, ...] = ()
    pre_s: float = 5.0
    post_s: float = 10.0
    pre_mib: float = 32.0
    picture: Shown = "overlay"

    def __post_init__(self) -> None:
        ranges = {"segment_s": (1, 86400), "min_free_mib": (0, 1e9), "pre_s": (0, 600), "post_s": (0, 86400)}
        ranges |= {"pre_mib": (1, 4096), "quota_gib": (0, 1e9)}
        for name, (least, most) in ranges.items():
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and least <= value <= most):
                raise UsageError(f"a recording's {name} is out of range", f"{value:g}", f"{least} to {most:g}.")
        if self.picture not in get_args(Shown):
            raise UsageError("a recording's picture is overlay or frame", str(self.picture))
        if self.events and self.pre_s + _KEYFRAME_S > self.segment_s:
            got = f"pre_s={self.pre_s:g} and segment_s={self.segment_s:g}"
            raise UsageError("the seconds before an event do not fit into a segment", got, "Make it longer.")
        least_bytes = self.segment_s * SEGMENT_BYTES_PER_S
        if self.quota_bytes is not None and self.quota_bytes < least_bytes:
            got = f"{self.quota_bytes / 2**20:.0f} MiB"
            do = f"Use quota_gib={math.ceil(least_bytes / 2**30 * 100) / 100:g} or more, or a smaller segment_s."
            raise UsageError(f"a recording's quota holds no segment of {self.segment_s:g} s", got, do)

    @property
    def quota_bytes(self) -> int | None:
        """`quota_gib` in bytes."""
        return None if self.quota_gib is None else round(self.quota_gib * 2**30)


def parse_record_uri(uri: str) -> tuple[Path, RecordingOptions]:
    """Folder and options of a URI such as `record:///var/video#segment_s=60&event=car&event=person`.

    Raises:
        UsageError: it is not understood, or see `RecordingOptions`.
    """
    folder, mark, text = uri.removeprefix(SCHEME).rpartition("#")
    folder, text = (folder, text) if mark else (text, "")
    if not uri.startswith(SCHEME) or not folder or not uri.isprintable():
        raise UsageError("a recording's address is not understood", uri[:200], f"Use {FORM}.")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True) if text else []
    except ValueError:
        raise UsageError("a recording's options are not understood", text[:200], f"Use {FORM}.") from None
    changes: dict[str, object] = {}
    for name, value in pairs:
        if name in changes and name != "event":
            raise UsageError("a recording's option stands twice", name[:40])
        changes[name] = _option(name, value)
    if "event" in changes:
        del changes["event"]
        changes["events"] = tuple(value for name, value in pairs if name == "event")
    return Path(folder), RecordingOptions(**changes)  # type: ignore[arg-type]


def _option(name: str, value: str) -> float | str:
    if name in {"event", "picture"}:
        if len(value) > 64 or not value.isprintable():
            raise UsageError(f"a recording's {name} is a short name", value[:64])
        return value
    if name not in {field.name for field in fields(RecordingOptions)} - {"events"}:
        raise UsageError(f"a recording has no option {name!r:.40}", "", f"Use {FORM}.")
    try:
        return float(value)
    except ValueError:
        raise UsageError(f"a recording's {name} is a number", value[:40], f"Use {FORM}.") from None
