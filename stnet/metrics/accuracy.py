"""Top-k accuracy and mean loss over every sample."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from stnet.metrics.metric import METRICS, Metric

_NONE = np.iinfo(np.int64).max  # rank of a label whose logits are not finite


@METRICS.register("TOPK")
class TopK(Metric):
    """Top-1 and top-5 hits and the cross entropy, by exact sums (math.fsum): independent of batches and ranks."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.hits = {1: 0, 5: 0}

    def update(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Add a batch: logits [B, num_classes] float, labels [B] int."""
        logits = np.asarray(logits, np.float64)
        target = logits[np.arange(len(labels)), labels]
        rank = (logits > target[:, None]).sum(axis=1)
        # Of equal logits, the lower class number comes first, as in a stable sort.
        rank += ((logits == target[:, None]) & (np.arange(logits.shape[1]) < labels[:, None])).sum(axis=1)
        rank = np.where(np.isfinite(logits).all(axis=1), rank, _NONE)
        for k in self.hits:
            self.hits[k] += int((rank < k).sum())
        top = logits.max(axis=1)
        self.losses += (top + np.log(np.exp(logits - top[:, None]).sum(axis=1)) - target).tolist()

    def state(self) -> dict[str, Any]:
        """Losses and hits, as plain data."""
        return {"losses": self.losses, "hits": self.hits}

    def merge(self, states: Iterable[dict[str, Any]]) -> None:
        """Replace the state by the sum of several."""
        states = list(states)
        self.losses = [loss for state in states for loss in state["losses"]]
        self.hits = {k: sum(state["hits"][k] for state in states) for k in self.hits}

    @property
    def count(self) -> int:
        """Samples so far."""
        return len(self.losses)

    def result(self) -> dict[str, float]:
        """{"TOP1_ACC", "TOP5_ACC", "loss", "count"}. Raises ValueError when there is no sample."""
        if not self.losses:
            raise ValueError("no sample was counted")
        n = self.count
        return {
            "TOP1_ACC": self.hits[1] / n,
            "TOP5_ACC": self.hits[5] / n,
            "loss": math.fsum(self.losses) / n,
            "count": n,
        }
