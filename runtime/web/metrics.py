"""Metrics for Prometheus, made from the books when they are asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from vidseg.runtime.web.board import SourceView

if TYPE_CHECKING:
    from prometheus_client import Metric

    from vidseg.runtime.pipeline.statistics import Statistics
    from vidseg.runtime.web.pictures import Viewers

STATES = ("live", "paused", "waiting", "quiet", "opening", "silent", "lost", "refused")

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def metrics_text(statistics: Statistics, views: Sequence[SourceView], viewers: Viewers) -> bytes:
    """All metrics in Prometheus' text format 0.0.4.

    Args:
        statistics: of the pipeline.
        views: of the sources.
        viewers: of the page.
    """
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.registry import Collector

    class Snapshot(Collector):
        def collect(self) -> Iterator[Metric]:
            yield from _of_frames(statistics)
            yield from _of_times(statistics)
            yield from _of_sources(views)
            yield from _of_viewers(viewers)

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
    for name, account in sorted(ledger.sinks.items()):
        queued.add_metric([name], account.queued)
        for outcome in ("offered", "written", "dropped", "failed"):
            results.add_metric([name, outcome], getattr(account, outcome))
    yield results
    yield queued


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


def _of_viewers(viewers: Viewers) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    yield GaugeMetricFamily("vidseg_page_viewers", "Streams of pictures that are watched.", viewers.count)
    yield CounterMetricFamily("vidseg_page_pictures_encoded", "Pictures encoded as JPEG.", viewers.encoder.encoded)
