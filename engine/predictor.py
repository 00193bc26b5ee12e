"""Class probabilities of clips."""

import contextlib
import logging

import numpy as np

from core.progress import Progress

logger = logging.getLogger("stnet")


def predict(engine, loader, labels, topk, log_interval=10):
    """The top classes of every readable clip.

    Args:
        engine, loader: as engine.evaluator.evaluate; the loader is in list order.
        labels: class names.
        topk: classes per clip; at most all.

    Returns:
        list of {"path", "predictions": [{"class", "label", "probability"}]}, in list order.
    """
    results = []
    progress = Progress(len(loader.dataset), "predict", len(loader), log_interval)
    with contextlib.closing(loader.epoch()) as batches:
        for batch in batches:
            if not batch.indices:
                continue
            for index, row in zip(batch.indices, softmax(engine(batch.clips))):
                results.append({"path": loader.dataset.clips[index].path, "predictions": top(row, labels, topk)})
            progress.update(len(batch.indices))
    progress.close()
    return results


def softmax(logits):
    """Probabilities [B, num_classes] of logits."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def top(probabilities, labels, topk):
    """The `topk` most probable classes of one clip, most probable first."""
    order = np.argsort(-probabilities, kind="stable")[:topk]
    return [{"class": int(i), "label": labels[i], "probability": float(probabilities[i])} for i in order]


def log_predictions(results):
    """One block per clip: path, then `class, probability` lines."""
    for result in results:
        logger.info("%s", result["path"])
        for row in result["predictions"]:
            logger.info("    %s, %.6f", row["label"], row["probability"])
