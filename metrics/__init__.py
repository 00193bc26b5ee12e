"""What is accumulated over samples, and what is said of all of them at the end."""

from metrics.accuracy import TopK
from metrics.metric import METRICS, Metric, metric_classes

__all__ = ["METRICS", "Metric", "TopK", "metric_classes"]
