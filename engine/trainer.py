"""The training loop."""

import logging
import os
import time

import numpy as np

from core.errors import UserError
from engine import checkpoint
from engine.evaluator import evaluate
from engine.progress import pace
from metrics import METRICS
from weights.download import released
from weights.load import load_pretrained

logger = logging.getLogger("stnet")


class Trainer:
    """Trains a model and writes its checkpoints.

    Args:
        model: models.model.Model in training mode.
        normalize: engine.batch.Normalizer.
        loader: reader.loader.Loader of the training clips.
        valid_loader: of the validation clips, or None.
        steps: the two steps at which the learning rate falls.
        save_dir: where checkpoints go.
        name: their prefix, "STNET".
        log_interval: steps between log lines.
        valid_interval: epochs between validations.
        labels: class names to save with the weights, or None.
    """

    def __init__(
        self,
        model,
        normalize,
        loader,
        valid_loader,
        steps,
        save_dir,
        name,
        log_interval=10,
        valid_interval=1,
        labels=None,
    ):
        self.model, self.network = model, model.network
        self.normalize, self.loader, self.valid_loader = normalize, loader, valid_loader
        self.optimizer, self.scheduler = model.optimizer(steps)
        self.save_dir, self.name = save_dir, name
        self.log_interval, self.valid_interval = log_interval, valid_interval
        self.labels = labels
        self.epochs = model.config.TRAIN.epoch
        self.epoch = 0  # epochs finished
        self.step = 0  # steps taken
        self.pending = []  # (step, loss, logits, labels) since the last log line, still on the device

    def resume(self, path):
        """Go on from a checkpoint of this project, or start from bare weights of any format."""
        progress = checkpoint.resume(path, self.model, self.optimizer)
        if progress is None:
            return
        self.epoch, self.step = progress["epoch"], progress["step"]
        if self.epoch >= self.epochs:
            raise UserError(f"--resume {path}: all {self.epochs} epochs are done; raise --epoch to train on")

    def load_pretrained(self, path):
        """Start from an ImageNet ResNet or another StNet: `path`, or the released file if it is empty."""
        if path.lower() == "none":
            logger.info("starting from random values")
            return
        advice = ", or set --pretrain to a file, or --pretrain=none to start from random values"

        def load(path):
            load_pretrained(self.network, path, self.model.original_names())

        load(path or released(self.model.pretrained_name(), advice, check=load))

    def fit(self):
        """Train to the last epoch; save after each; validate every `valid_interval`. Returns the last scores."""
        scores = {}
        while self.epoch < self.epochs:
            self.train_epoch()
            self.epoch += 1
            self.save(f"epoch{self.epoch - 1}")
            if self.valid_loader and self.valid_interval > 0 and self.epoch % self.valid_interval == 0:
                scores = evaluate(self.network, self.normalize, self.valid_loader, "valid", self.log_interval)
                logger.info("valid epoch %d: %s", self.epoch - 1, format_scores(scores))
        self.save("final")
        return scores

    def train_epoch(self):
        """All steps of one epoch."""
        self.network.train()
        started, clips = time.monotonic(), 0
        for i, batch in enumerate(self.loader.epoch(self.epoch), start=1):
            self.train_step(batch)
            clips += len(batch.indices)
            if i % self.log_interval == 0 or i == len(self.loader):
                self.log_interval_scores(i, pace(clips, self.clips_to_go(), time.monotonic() - started))
        self.check_finite()

    def train_step(self, batch):
        """Forward, backward, update."""
        logits = self.network(self.normalize(batch.clips))
        loss = self.model.loss(logits, batch.labels)
        loss.backward()
        self.optimizer.step()
        self.optimizer.clear_grad()
        self.scheduler.step()
        self.step += 1
        self.pending.append((self.step, loss.detach(), logits.detach(), batch.labels))

    def clips_to_go(self):
        """Clips from the start of this epoch to the end of training, for the estimate of the time left."""
        return len(self.loader.dataset) * (self.epochs - self.epoch)

    def check_finite(self):
        """Stop at the first loss since the last check that is not finite. Returns the losses."""
        losses = [(step, float(loss)) for step, loss, _, _ in self.pending]
        for step, loss in losses:
            if not np.isfinite(loss):
                raise UserError(
                    f"the loss of step {step} (epoch {self.epoch}) is {loss}: training stopped; "
                    "a lower learning rate may help (--learning_rate)"
                )
        return losses

    def log_interval_scores(self, step_in_epoch, speed):
        """One line for the steps since the last."""
        losses = self.check_finite()
        scores = METRICS.get("TOPK")()
        for _, _, logits, labels in self.pending:
            scores.update(logits.numpy(), labels.numpy())
        self.pending = []
        result = scores.result()
        logger.info(
            "train epoch %d step %d/%d loss %.9g top1 %.4f top5 %.4f lr %.4g, %s",
            self.epoch,
            step_in_epoch,
            len(self.loader),
            np.mean([loss for _, loss in losses]),
            result["TOP1_ACC"],
            result["TOP5_ACC"],
            self.optimizer.get_lr(),
            speed,
        )

    def save(self, suffix):
        """Write the checkpoint NAME_suffix."""
        name = f"{self.name}_{suffix}"
        progress = {"epoch": self.epoch, "step": self.step}
        checkpoint.save(self.save_dir, name, self.network, self.optimizer, progress, self.model.config, self.labels)
        logger.info("saved %s", os.path.join(self.save_dir, name + ".pdparams"))


def format_scores(scores):
    """Scores as one readable line."""
    return (
        f"TOP1_ACC {scores['TOP1_ACC']:.4f}, TOP5_ACC {scores['TOP5_ACC']:.4f}, "
        f"loss {scores['loss']:.4f}, {scores['count']} clips"
    )
