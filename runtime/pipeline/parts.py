"""Whether the parts of a pipeline fit together, and which of them did not end."""

from __future__ import annotations

from collections.abc import Sequence

from vidseg.runtime.errors import StopTimeoutError, UsageError
from vidseg.runtime.sinks import Sink
from vidseg.runtime.sources import Source


def check_parts(sources: Sequence[Source], sinks: Sequence[Sink], *, has_draw: bool) -> None:
    """Find what makes no sense before anything is started.

    Raises:
        UsageError: no source, two parts of one name, or a sink that wants pictures where nothing draws them.
    """
    if not sources:
        raise UsageError("a pipeline needs a source", "none")
    for kind, parts in (("sources", sources), ("sinks", sinks)):
        names = [part.name for part in parts]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UsageError(f"two {kind} are the same", f"{', '.join(twice)} twice", "Name each one once.")
    wanting = [sink.name for sink in sinks if sink.wants_picture]
    if wanting and not has_draw:
        raise UsageError("a sink wants pictures", f"{wanting[0]} and no `draw`", "Give the pipeline an Overlay.")


def outlived(names: Sequence[str]) -> StopTimeoutError:
    """What is said of threads that did not end in time."""
    return StopTimeoutError(
        "the pipeline did not stop in time", f"still running: {', '.join(names)}", "They end with the process."
    )
