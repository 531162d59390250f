"""What the sinks that record or publish say of themselves."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from vidseg.runtime.sinks.jsonl import JsonLinesStatistics
    from vidseg.runtime.sinks.publish import PublishStatistics
    from vidseg.runtime.sinks.recording.sink import RecordingStatistics
    from vidseg.runtime.web.controlled import Controlled

Outputs: TypeAlias = dict[str, dict[str, int | str]]
"""By the sink's name, the fields of its statistics: see `TellingSink`."""


@runtime_checkable
class TellingSink(Protocol):
    """A sink that counts what it kept and what it could not keep."""

    @property
    def name(self) -> str:
        """See `Sink`."""

    def statistics(self) -> RecordingStatistics | PublishStatistics | JsonLinesStatistics:
        """At this instant; from any thread."""


def outputs_of(controlled: Controlled | None) -> Outputs:
    """What each of them says now; nothing before the pipeline is there."""
    sinks = () if controlled is None else controlled.sinks()
    return {sink.name: asdict(sink.statistics()) for sink in sinks if isinstance(sink, TellingSink)}
