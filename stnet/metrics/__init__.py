"""Metrics: top-k accuracy, calibration, confusion, and the interface for others."""

from stnet.metrics.accuracy import TopK
from stnet.metrics.metric import METRICS, Metric, metric_classes

__all__ = ["METRICS", "Metric", "TopK", "metric_classes"]
