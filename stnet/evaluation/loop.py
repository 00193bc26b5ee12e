"""The loop over clips and their logits, of eval, predict and validation during training."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Generator, Sequence
from typing import Any

import numpy as np
import paddle

from stnet import parallel
from stnet.evaluation.results import Collector
from stnet.metrics import Metric, TopK
from stnet.models.dygraph import Clips
from stnet.reader.loader import Batch, Loader
from stnet.utils.errors import USE_PADDLE, UserError
from stnet.utils.progress import Progress

logger = logging.getLogger("stnet")

Engine = Callable[[Any], np.ndarray]  # uint8 clips in, logits out, see stnet.backends.engines


def evaluate(
    engine: Callable[[paddle.Tensor], np.ndarray],
    loader: Loader,
    what: str = "eval",
    log_interval: int = 10,
    after_batch: Callable[[], None] | None = None,
    metrics: Sequence[type[Metric]] = (TopK,),
    collector: Collector | None = None,
    reserved: Collection[str] = (),
) -> dict[str, float]:
    """Score every readable clip of a loader once, over all ranks.

    Args:
        engine: from uint8 clips to logits, see stnet.backends.engines.
        loader: of labelled clips.
        what: first word of the progress lines.
        log_interval: batches between them.
        after_batch: called after each batch; may raise to stop.
        metrics: see metrics.metric_classes.
        collector: receives every batch and its logits, see stnet.evaluation.results.
        reserved: names that no score may have.

    Returns:
        the scores of all metrics by name; of TopK, TOP1_ACC, TOP5_ACC, loss and count.

    Raises:
        UserError: two scores have the same name, or one a reserved name, if possible after the first batch; the logits
            have another number of classes; or as loader.epoch.
    """
    counting, tried = [metric() for metric in metrics], False
    with contextlib.closing(scored(engine, loader, what, log_interval)) as batches:
        for batch, logits in batches:
            if batch.indices:
                _check_classes(logits, loader.dataset.num_classes)
                labels = batch.labels.numpy()
                if not tried:
                    _try_names(metrics, logits, labels, reserved)
                    tried = True
                for metric in counting:
                    metric.update(logits, labels)
                if collector:
                    collector.add(batch, logits)
            if after_batch:
                after_batch()
    if parallel.ranks() > 1:
        loader.bad.merge(parallel.gather(loader.bad.reasons))
    states = parallel.gather([metric.state() for metric in counting])
    for metric, of_ranks in zip(counting, zip(*states)):
        metric.merge(of_ranks)
    return _together(counting, reserved)


def scored(
    engine: Engine, loader: Loader, what: str, log_interval: int
) -> Generator[tuple[Batch, np.ndarray], None, None]:
    """Yield each batch of this rank with the logits of its readable clips, if any; show progress.

    For clips with several views, the logits are the logarithms of the mean probabilities.
    """
    clips = sum(map(len, loader.order.batches(0)))
    views, at_once = loader.dataset.section.views, loader.order.computed_at_once
    of = " of this process" if parallel.ranks() > 1 else ""
    progress = Progress(clips, what, len(loader), log_interval, of)
    with contextlib.closing(progress), contextlib.closing(loader.epoch()) as batches:
        for batch in batches:
            logits = np.zeros((0, 0), np.float32)
            if batch.indices:
                logits = logits_of(engine, batch.clips, views, at_once)
            yield batch, logits
            progress.update(len(batch.indices))


def rows_of(
    compute: Callable[[Any], Any], loader: Loader, what: str, log_interval: int, rows: Callable[[Any], Any]
) -> Generator[tuple[int, Any, str], None, None]:
    """Yield (index, row or None, reason that it could not be read) for each clip of a loader, in order.

    Args:
        compute: from uint8 clips to a batch of outputs.
        rows: from such a batch to a row for each clip.
    """
    order = loader.order.batches(0)
    with contextlib.closing(scored(compute, loader, what, log_interval)) as batches:
        for listed, (batch, outputs) in zip(order, batches):
            by_index = dict(zip(batch.indices, rows(outputs)))
            for _, index in listed:
                yield index, by_index.get(index), loader.bad.reasons.get(index, "")


def logits_of(engine: Engine, clips: Clips, views: int, at_once: int) -> np.ndarray:
    """The engine's logits [B, num_classes] of clips, over several views as `over_views`."""
    return checked(engine, clips) if views == 1 else over_views(engine, clips, views, at_once)


def over_views(engine: Engine, clips: Clips, views: int, at_once: int) -> np.ndarray:
    """Logarithms of the probabilities [B, num_classes], float32, each the mean over a clip's views.

    Args:
        engine: from uint8 clips to logits.
        clips: uint8 [B, views * seg_num, 3 * seglen, H, W].
        at_once: batch size of the engine, in views.
    """
    count, segments, *sizes = clips.shape
    each = clips.reshape([count * views, segments // views, *sizes])
    logits = np.concatenate([checked(engine, each[i : i + at_once]) for i in range(0, len(each), at_once)])
    powers = logits.astype(np.float64).reshape(count, views, -1)
    logarithms = powers - np.logaddexp.reduce(powers, axis=2, keepdims=True)
    return (np.logaddexp.reduce(logarithms, axis=1) - np.log(views)).astype(np.float32)


def checked(engine: Engine, clips: Clips) -> np.ndarray:
    """The engine's logits. Raises UserError unless there is a row for each clip."""
    logits = engine(clips)
    if len(logits) != len(clips):
        raise UserError(f"the engine gave {len(logits)} rows of logits for {len(clips)} clips", USE_PADDLE)
    return logits


def _check_classes(logits: np.ndarray, num_classes: int | None) -> None:
    if num_classes is not None and logits.shape[1:] != (num_classes,):
        raise UserError(f"the engine gave logits {list(logits.shape[1:])} of {num_classes} classes", USE_PADDLE)


def _try_names(
    metrics: Sequence[type[Metric]], logits: np.ndarray, labels: np.ndarray, reserved: Collection[str]
) -> None:
    """Check the names of scores on the first batch, if its clips are enough for the metrics."""
    trial = [metric() for metric in metrics]
    try:
        for metric in trial:
            metric.update(logits, labels)
        _together(trial, reserved)
    except UserError:
        raise
    except Exception:  # a plugin's metric may need more clips or classes
        logger.debug("metrics of one batch", exc_info=True)


def _together(metrics: Sequence[Metric], reserved: Collection[str] = ()) -> dict[str, float]:
    scores: dict[str, float] = {}
    for metric in metrics:
        result = metric.result()
        taken = sorted(result.keys() & set(reserved))
        if taken:
            raise UserError(f"{type(metric).__name__} gives a score of a reserved name: {', '.join(taken)}")
        twice = sorted(scores.keys() & result.keys())
        if twice:
            raise UserError(f"{type(metric).__name__} gives a score that another metric has: {', '.join(twice)}")
        scores.update({name: np.asarray(score).item() for name, score in result.items()})
    return scores
