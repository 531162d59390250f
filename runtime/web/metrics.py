"""Metrics for Prometheus, made from the books when they are asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, get_args

from vidseg.runtime.web.board import SourceView, State

if TYPE_CHECKING:
    from prometheus_client import Metric

    from vidseg.runtime.pipeline.statistics import Statistics
    from vidseg.runtime.web.outputs import Outputs
    from vidseg.runtime.web.pictures import Viewers
    from vidseg.runtime.web.webrtc import Peers

STATES = tuple(state for part in get_args(State) for state in get_args(part) if state != "removed")
"""Of a source that is there."""

OUTPUT_COUNTERS = {
    "recorded": ("vidseg_recording_frames_recorded", "Frames that are on the disk and play."),
    "not_recorded": ("vidseg_recording_frames_missing", "Frames that the disk did not take."),
    "published": ("vidseg_publishing_pictures_published", "Pictures that were handed to a server's connection."),
    "not_published": ("vidseg_publishing_pictures_missing", "Pictures that no connection took."),
    "written": ("vidseg_lines_written", "Lines of JSON that are in a file, or were printed."),
    "missing": ("vidseg_lines_missing", "Lines of JSON that the disk did not take."),
}
"""By the field of a sink's statistics."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def metrics_text(
    statistics: Statistics, views: Sequence[SourceView], outputs: Outputs, *, viewers: Viewers, peers: Peers
) -> bytes:
    """All metrics in Prometheus' text format 0.0.4.

    Args:
        statistics: of the pipeline.
        views: of the sources.
        outputs: what sinks say of themselves.
        viewers, peers: of the page.
    """
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.registry import Collector

    class Snapshot(Collector):
        def collect(self) -> Iterator[Metric]:
            yield from _of_frames(statistics)
            yield from _of_times(statistics)
            yield from _of_sources(views)
            yield from _of_outputs(outputs)
            yield from _of_viewers(viewers, peers)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Snapshot())
    return generate_latest(registry)


def _of_frames(statistics: Statistics) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    ledger = statistics.ledger
    yield CounterMetricFamily("vidseg_frames_captured", "Frames that the sources gave.", ledger.captured)
    yield CounterMetricFamily("vidseg_frames_resolved", "Frames whose results went to the sinks.", ledger.resolved)
    dropped = CounterMetricFamily("vidseg_frames_dropped", "Frames that were given up.", labels=["cause"])
    for cause, count in sorted(ledger.dropped.items()):
        dropped.add_metric([cause], count)
    yield dropped
    yield GaugeMetricFamily("vidseg_frames_in_flight", "Frames between capture and hand-over.", ledger.in_flight)
    yield CounterMetricFamily("vidseg_results_late", "Hand-overs behind the deadline.", statistics.late)
    results = CounterMetricFamily("vidseg_sink_results", "What became of results.", labels=["sink", "outcome"])
    queued = GaugeMetricFamily("vidseg_sink_queued", "Results that wait for a sink.", labels=["sink"])
    detached = GaugeMetricFamily(
        "vidseg_sink_detached", "1 once a sink has failed: it gets nothing any more.", labels=["sink"]
    )
    for name, account in sorted(ledger.sinks.items()):
        queued.add_metric([name], account.queued)
        detached.add_metric([name], float(name in statistics.detached))
        for outcome in ("offered", "written", "dropped", "failed"):
            results.add_metric([name, outcome], getattr(account, outcome))
    yield results
    yield queued
    yield detached


def _of_times(statistics: Statistics) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    yield GaugeMetricFamily("vidseg_results_per_second", "Over the recent window.", statistics.fps)
    age = GaugeMetricFamily("vidseg_age_seconds", "From capture to hand-over, recent window.", labels=["quantile"])
    for quantile, age_ms in (("0.5", statistics.age_p50_ms), ("0.99", statistics.age_p99_ms)):
        if not math.isnan(age_ms):
            age.add_metric([quantile], age_ms / 1e3)
    yield age
    stages = GaugeMetricFamily("vidseg_stage_seconds", "Median time of a stage, recent window.", labels=["stage"])
    for stage, time_ms in statistics.stage_ms.items():
        stages.add_metric([stage], time_ms / 1e3)
    yield stages
    hanging = GaugeMetricFamily(
        "vidseg_stage_hanging", "1 while a stage is at one piece of work for too long.", labels=["stage"]
    )
    for stage in sorted({*statistics.stage_ms, *statistics.hanging}):
        hanging.add_metric([stage], float(stage in statistics.hanging))
    yield hanging


def _of_sources(views: Sequence[SourceView]) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    states = GaugeMetricFamily("vidseg_source_state", "1 for the state that it is in.", labels=["source", "state"])
    rates = GaugeMetricFamily("vidseg_source_results_per_second", "As the page gets them.", labels=["source"])
    for view in views:
        rates.add_metric([view.name], view.fps)
        for state in STATES:
            states.add_metric([view.name, state], float(view.state == state))
    yield states
    yield rates


def _of_outputs(outputs: Outputs) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    for field, (metric, text) in OUTPUT_COUNTERS.items():
        counter = CounterMetricFamily(metric, text, labels=["sink"])
        for name, output in outputs.items():
            if field in output:
                counter.add_metric([name], float(output[field]))
        yield counter
    size = GaugeMetricFamily("vidseg_recording_bytes", "Of all segments, earlier runs included.", labels=["sink"])
    troubled = GaugeMetricFamily(
        "vidseg_output_troubled", "1 while nothing is kept; /api/status says why.", labels=["sink"]
    )
    for name, output in outputs.items():
        troubled.add_metric([name], float(bool(output["trouble"])))
        if "size_bytes" in output:
            size.add_metric([name], float(output["size_bytes"]))
    yield size
    yield troubled


def _of_viewers(viewers: Viewers, peers: Peers) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    yield GaugeMetricFamily("vidseg_page_viewers", "Streams of pictures that are watched.", viewers.count)
    yield CounterMetricFamily("vidseg_page_pictures_encoded", "Pictures encoded as JPEG.", viewers.encoder.encoded)
    yield GaugeMetricFamily("vidseg_page_webrtc_viewers", "Videos that are watched by WebRTC.", peers.count)
    yield CounterMetricFamily("vidseg_page_video_encoded", "Pictures encoded as H.264.", peers.encoded)
