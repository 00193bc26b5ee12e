"""train.py --dry_run: everything is looked at, one step is taken, nothing is written."""

import logging
import random
import time

from core import runtime
from core.errors import UserError
from core.progress import hours
from models.macs import count_macs
from reader.bad_clips import allowed_bad

logger = logging.getLogger("stnet")
_SAMPLE = 32  # clips that are decoded


def dry_run(trainer):
    """Check a sample of the lists' files and take one training step on one batch.

    Args:
        trainer: engine.trainer.Trainer with its weights in place.

    Returns:
        plain dict of what was found; it is logged, too.

    Raises:
        UserError: more than `max_bad_ratio` of the sample cannot be read, or the step fails.
    """
    loaders = {"train": trainer.loader, "valid": trainer.valid_loader}
    for name, loader in loaders.items():
        if loader is not None:
            _check_sample(name, loader)
    shape = [1, *trainer.loader.dataset.clip_shape]
    found = {
        "parameters": sum(value.size for value in trainer.network.state_dict().values()),
        "gmacs_per_clip": count_macs(trainer.network, shape) / 1e9,
        "steps_per_epoch": -(-len(trainer.loader) // trainer.options.accumulate_steps),
        **_one_step(trainer),
    }
    found["expected_s"] = found["step_s"] * found["steps_per_epoch"] * trainer.epochs
    logger.info(
        "parameters and statistics %.2f M, %.2f G multiply-adds a clip of %s",
        found["parameters"] / 1e6, found["gmacs_per_clip"], shape[1:],
    )  # fmt: skip
    logger.info(
        "%d steps an epoch, %d epochs; a step takes %.2f s and %d MB; training takes about %s, reading not counted",
        found["steps_per_epoch"], trainer.epochs, found["step_s"], found["memory_mb"], hours(found["expected_s"]),
    )  # fmt: skip
    return found


def _check_sample(name, loader):
    order = random.Random(0).sample(range(len(loader.dataset)), min(_SAMPLE, len(loader.dataset)))
    bad = {}
    for index in order:
        sample = loader.dataset[(0, index)]
        if sample.fatal:
            raise RuntimeError(sample.fatal)
        if sample.error:
            bad[index] = sample.error
            logger.warning("%s list: %s: %s", name, loader.dataset.clips[index].path, sample.error)
    logger.info("%s list: %d clips, %d of %d looked at cannot be read", name, len(loader.dataset), len(bad), len(order))
    if len(bad) > allowed_bad(loader.dataset.section.max_bad_ratio, len(order)):
        raise UserError(f"{len(bad)} of {len(order)} clips of the {name} list cannot be read, more than max_bad_ratio")


def _one_step(trainer):
    """Time and memory of the second of two steps on the first batch."""
    trainer.network.train()
    group = []
    for batch in trainer.loader.epoch(0):
        group.append(batch)
        if len(group) == trainer.options.accumulate_steps:
            break
    for _ in range(2):
        began = time.monotonic()
        trainer.train_step(group)
        trainer.check_finite()
    return {"step_s": time.monotonic() - began, "memory_mb": runtime.memory_mb()}
