"""What is accumulated over samples."""

from metrics.accuracy import METRICS, TopK

__all__ = ["METRICS", "TopK"]
