"""train.py --dry_run: check the data and take one step, without writing a file."""

from __future__ import annotations

import itertools
import logging
import random
import time

from stnet import runtime
from stnet.models.macs import count_macs
from stnet.reader.bad_clips import allowed_bad
from stnet.reader.loader import Loader
from stnet.training.trainer import Trainer
from stnet.utils.errors import UserError
from stnet.utils.progress import hours

logger = logging.getLogger("stnet")
_SAMPLE = 32  # clips that are decoded


def dry_run(trainer: Trainer) -> dict[str, float]:
    """Read a sample of the lists' files and take a training step with a trainer whose weights are loaded.

    Returns:
        the values of the log: {"parameters", "gmacs_per_clip", "steps_per_epoch", "step_s", "memory_mb", "expected_s"}.

    Raises:
        UserError: more than `max_bad_ratio` of the sample cannot be read, or the step fails.
    """
    _check_sample("train", trainer.loader)
    if trainer.valid_loader is not None:
        _check_sample("valid", trainer.valid_loader)
    shape = [1, *trainer.loader.dataset.clip_shape]
    facts = {
        "parameters": sum(value.size for value in trainer.model.network.state_dict().values()),
        "gmacs_per_clip": count_macs(trainer.model.network, shape) / 1e9,
        "steps_per_epoch": trainer.steps_per_epoch,
        **_one_step(trainer),
    }
    epochs = trainer.options.epoch
    facts["expected_s"] = facts["step_s"] * facts["steps_per_epoch"] * epochs
    logger.info(
        "parameters and statistics %.2f M, %.2f G multiply-adds a clip of %s",
        facts["parameters"] / 1e6, facts["gmacs_per_clip"], shape[1:],
    )  # fmt: skip
    logger.info(
        "%d steps an epoch, %d epochs; a step takes %.2f s and %d MB; training takes about %s, reading not counted",
        facts["steps_per_epoch"], epochs, facts["step_s"], facts["memory_mb"], hours(facts["expected_s"]),
    )  # fmt: skip
    return facts


def _check_sample(name: str, loader: Loader) -> None:
    order = random.Random(0).sample(range(len(loader.dataset)), min(_SAMPLE, len(loader.dataset)))
    bad = {}
    for index in order:
        sample = loader.dataset[(0, index)]
        if sample.fatal:
            raise RuntimeError(sample.fatal)
        if sample.error:
            bad[index] = sample.error
            logger.warning("%s list: %s: %s", name, loader.dataset.clips[index].name, sample.error)
    logger.info("%s list: %d clips, %d read, %d of them unreadable", name, len(loader.dataset), len(order), len(bad))
    if len(bad) > allowed_bad(loader.dataset.section.max_bad_ratio, len(order)):
        raise UserError(f"{len(bad)} of {len(order)} clips of the {name} list cannot be read, more than max_bad_ratio")


def _one_step(trainer: Trainer) -> dict[str, float]:
    """Time and memory of the second of two steps on the first batches."""
    trainer.model.train()
    group = list(itertools.islice(trainer.loader.epoch(0), trainer.options.accumulate_steps))
    for _ in range(2):
        began = time.monotonic()
        trainer.train_step(group)
        trainer.check_finite()
    return {"step_s": time.monotonic() - began, "memory_mb": runtime.memory_mb()}
