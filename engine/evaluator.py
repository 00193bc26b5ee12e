"""The one evaluation loop: training's validation and eval.py both use it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import numpy as np
import paddle

from core import parallel
from core.errors import UserError
from core.progress import Progress
from metrics import Metric, TopK
from reader.loader import Loader


def evaluate(
    engine: Callable[[paddle.Tensor], np.ndarray],
    loader: Loader,
    what: str = "eval",
    log_interval: int = 10,
    after_batch: Callable[[], None] | None = None,
    metrics: Sequence[type[Metric]] = (TopK,),
) -> dict[str, float]:
    """Score every readable clip of a loader once, over all ranks.

    Args:
        engine: from uint8 clips to logits, see backends.engines.
        loader: of labelled clips.
        what: word for the progress lines.
        log_interval: batches between them.
        after_batch: called after each batch; may raise to stop.
        metrics: what is computed, see metrics.metric_classes.

    Returns:
        the scores of all metrics by name; of TopK, TOP1_ACC, TOP5_ACC, loss and count.

    Raises:
        UserError: two metrics give scores of the same name; or as loader.epoch.
    """
    counting = [metric() for metric in metrics]
    clips = sum(map(len, loader.order.batches(0)))
    progress = Progress(clips, what, len(loader), log_interval)
    with contextlib.closing(progress), contextlib.closing(loader.epoch()) as batches:
        for batch in batches:
            if not batch.indices:
                continue
            logits, labels = engine(batch.clips), batch.labels.numpy()
            for metric in counting:
                metric.update(logits, labels)
            progress.update(len(batch.indices))
            if after_batch:
                after_batch()
    states = parallel.gather([metric.state() for metric in counting])
    for metric, of_ranks in zip(counting, zip(*states)):
        metric.merge(of_ranks)
    return _together(counting)


def _together(metrics: Sequence[Metric]) -> dict[str, float]:
    scores: dict[str, float] = {}
    for metric in metrics:
        result = metric.result()
        twice = sorted(scores.keys() & result.keys())
        if twice:
            raise UserError(f"{type(metric).__name__} gives a score that another metric has: {', '.join(twice)}")
        scores.update(result)
    return scores
