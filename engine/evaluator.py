"""The one evaluation loop: training's validation and eval.py both use it."""

import contextlib

from core import parallel
from core.progress import Progress
from metrics import METRICS


def evaluate(engine, loader, what="eval", log_interval=10, metric="TOPK", after_batch=None):
    """Score every readable clip of a loader once, over all ranks.

    Args:
        engine: function from uint8 clips to logits, see backends.engines.
        loader: reader.loader.Loader.
        what: word for the progress lines.
        after_batch: called after each batch; may raise to stop.

    Returns:
        the metric's result: {"TOP1_ACC", "TOP5_ACC", "loss", "count"}.
    """
    scores = METRICS.get(metric)()
    clips = sum(map(len, loader.order.batches(0)))
    progress = Progress(clips, what, len(loader), log_interval)
    with contextlib.closing(loader.epoch()) as batches:
        for batch in batches:
            if not batch.indices:
                continue
            scores.update(engine(batch.clips), batch.labels.numpy())
            progress.update(len(batch.indices))
            if after_batch:
                after_batch()
    progress.close()
    scores.merge(parallel.gather(scores.state()))
    return scores.result()
