"""The one loop over clips and their logits: training's validation, eval and predict all use it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence

import numpy as np
import paddle

from core import parallel
from core.errors import UserError
from core.progress import Progress
from engine.evaluation import Collector
from metrics import Metric, TopK
from reader.loader import Batch, Loader


def evaluate(
    engine: Callable[[paddle.Tensor], np.ndarray],
    loader: Loader,
    what: str = "eval",
    log_interval: int = 10,
    after_batch: Callable[[], None] | None = None,
    metrics: Sequence[type[Metric]] = (TopK,),
    collector: Collector | None = None,
) -> dict[str, float]:
    """Score every readable clip of a loader once, over all ranks.

    Args:
        engine: from uint8 clips to logits, see backends.engines.
        loader: of labelled clips.
        what: word for the progress lines.
        log_interval: batches between them.
        after_batch: called after each batch; may raise to stop.
        metrics: what is computed, see metrics.metric_classes.
        collector: is given every batch and its logits, see engine.evaluation.

    Returns:
        the scores of all metrics by name; of TopK, TOP1_ACC, TOP5_ACC, loss and count.

    Raises:
        UserError: two metrics give scores of the same name; or as loader.epoch.
    """
    counting = [metric() for metric in metrics]
    with contextlib.closing(scored(engine, loader, what, log_interval)) as batches:
        for batch, logits in batches:
            if batch.indices:
                for metric in counting:
                    metric.update(logits, batch.labels.numpy())
                if collector:
                    collector.add(batch, logits)
            if after_batch:
                after_batch()
    states = parallel.gather([metric.state() for metric in counting])
    for metric, of_ranks in zip(counting, zip(*states)):
        metric.merge(of_ranks)
    return _together(counting)


def scored(
    engine: Callable[[paddle.Tensor], np.ndarray], loader: Loader, what: str, log_interval: int
) -> Generator[tuple[Batch, np.ndarray], None, None]:
    """Each batch of this rank with the logits of its readable clips, of which there may be none; shows progress."""
    clips = sum(map(len, loader.order.batches(0)))
    progress = Progress(clips, what, len(loader), log_interval)
    with contextlib.closing(progress), contextlib.closing(loader.epoch()) as batches:
        for batch in batches:
            logits = engine(batch.clips) if batch.indices else np.zeros((0, 0), np.float32)
            if len(logits) != len(batch.indices):
                raise UserError(
                    f"the engine gave {len(logits)} rows of logits for {len(batch.indices)} clips", "engine"
                )
            yield batch, logits
            progress.update(len(batch.indices))


def _together(metrics: Sequence[Metric]) -> dict[str, float]:
    scores: dict[str, float] = {}
    for metric in metrics:
        result = metric.result()
        twice = sorted(scores.keys() & result.keys())
        if twice:
            raise UserError(f"{type(metric).__name__} gives a score that another metric has: {', '.join(twice)}")
        scores.update(result)
    return scores
