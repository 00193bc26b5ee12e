"""What is accumulated over samples."""

from metrics.accuracy import TopK
from metrics.metric import METRICS, Metric, metric_classes

__all__ = ["METRICS", "Metric", "TopK", "metric_classes"]
