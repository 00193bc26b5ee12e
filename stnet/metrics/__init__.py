"""What is accumulated over samples, and what is said of all of them at the end."""

from stnet.metrics.accuracy import TopK
from stnet.metrics.metric import METRICS, Metric, metric_classes

__all__ = ["METRICS", "Metric", "TopK", "metric_classes"]
