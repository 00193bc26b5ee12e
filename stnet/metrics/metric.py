"""What every metric is, and the table of all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np

from stnet.utils.registry import Registry

METRICS: Registry[type[Metric]] = Registry("metric")


class Metric(ABC):
    """What is accumulated over samples, by eval and by validation during training; a new one for each pass.

    One of your own derives from this, under METRICS; MODEL.metrics names it. Results must not depend on how clips were
    divided among batches and ranks.
    """

    @abstractmethod
    def update(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Add a batch: logits [B, num_classes] float, labels [B] int."""

    @abstractmethod
    def state(self) -> Any:
        """What was counted, as plain data: it goes from rank to rank."""

    @abstractmethod
    def merge(self, states: Iterable[Any]) -> None:
        """Hold what the `state()` of all ranks say together, this one's among them, instead of its own."""

    @abstractmethod
    def result(self) -> dict[str, float]:
        """Scores by name. Raises ValueError when there is no sample."""


def metric_classes(names: Iterable[str]) -> list[type[Metric]]:
    """Those that are computed where MODEL.metrics names some: top-k, by which the best weights are chosen, and these.

    Raises:
        UserError: a name is unknown.
    """
    return list(dict.fromkeys(METRICS.get(name) for name in ["TOPK", *names]))
