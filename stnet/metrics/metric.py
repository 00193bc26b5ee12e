"""Interface and registry of metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np

from stnet.utils.registry import Registry

METRICS: Registry[type[Metric]] = Registry("metric")


class Metric(ABC):
    """Accumulates over clips, in eval and in validation during training; a new one for each pass.

    To add one, derive from this class and register it in METRICS; MODEL.metrics names it. Results must not depend on
    how clips are divided among batches and ranks.
    """

    @abstractmethod
    def update(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Add a batch: logits [B, num_classes] float, labels [B] int."""

    @abstractmethod
    def state(self) -> Any:
        """The accumulated values as plain data, sent from rank to rank."""

    @abstractmethod
    def merge(self, states: Iterable[Any]) -> None:
        """Replace the accumulated values by the `state()` of all ranks, its own among them."""

    @abstractmethod
    def result(self) -> dict[str, float]:
        """Scores by name. Raises ValueError when there is no sample."""


def metric_classes(names: Iterable[str]) -> list[type[Metric]]:
    """Classes of top-k, by which the best weights are chosen, and of the names of MODEL.metrics.

    Raises:
        UserError: a name is unknown.
    """
    return list(dict.fromkeys(METRICS.get(name) for name in ["TOPK", *names]))
