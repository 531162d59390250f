"""The pipeline: capture, inference and delivery in threads that `Pipeline` alone owns."""

from vidseg.runtime.pipeline.intake import SlotPolicy
from vidseg.runtime.pipeline.ledger import LedgerSnapshot, SinkAccount
from vidseg.runtime.pipeline.options import PipelineOptions
from vidseg.runtime.pipeline.pipeline import Pipeline
from vidseg.runtime.pipeline.signals import signals_end
from vidseg.runtime.pipeline.statistics import Statistics

__all__ = [
    "LedgerSnapshot",
    "Pipeline",
    "PipelineOptions",
    "SinkAccount",
    "SlotPolicy",
    "Statistics",
    "signals_end",
]
