"""Measuring a model: evaluation metrics."""
