"""The training loop."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stnet import parallel, runtime
from stnet.evaluation.loop import evaluate
from stnet.evaluation.results import Collector
from stnet.metrics import TopK, metric_classes
from stnet.models.dygraph import Dygraph
from stnet.models.model import Model, class_weights
from stnet.models.normalizer import Normalizer
from stnet.reader.loader import Batch, Loader
from stnet.training import resume
from stnet.training.ema import make_average, restore_weights
from stnet.training.feature_cache import FeatureLoader
from stnet.training.log import RESERVED, Journal, read_journal
from stnet.training.report import write_training_report
from stnet.training.step import Outcome, State, Stepper
from stnet.utils.errors import UserError, first_line
from stnet.utils.files import sha256_of
from stnet.utils.progress import Clock, format_scores, hours
from stnet.utils.signals import Stopped, StopRequest
from stnet.weights import checkpoint

logger = logging.getLogger("stnet")
_STOP_CHECK = 10  # steps between exchanges of stop signals among ranks


@dataclass
class Progress:
    """Progress of a run."""

    epoch: int = 0  # epochs finished
    step: int = 0  # updates done
    batch: int = 0  # batches of the current epoch done
    best: float | None = None  # best validation top-1 so far
    since_best: int = 0  # validations after it


class Trainer:
    """Trains a model and writes its checkpoints.

    A step is one update of the weights, from `accumulate_steps` batches. Random numbers depend on seed, epoch, clip and
    step alone, so that a resumed run takes the same steps as one that was not interrupted.

    Args:
        model: in training mode.
        loader: of this rank's share of the training clips.
        valid_loader: of the validation clips, or None.
        steps: the two steps at which the learning rate falls.
        save_dir: folder of checkpoints and logs.
        log_interval: steps between log lines.
        valid_interval: epochs between validations; 0: none.
        labels: class names to save with the weights, or None.
    """

    def __init__(
        self,
        model: Model,
        normalize: Normalizer,
        loader: Loader,
        valid_loader: Loader | None,
        steps: tuple[int, int],
        save_dir: str,
        seed: int,
        log_interval: int = 10,
        valid_interval: int = 1,
        labels: Sequence[str] | None = None,
    ) -> None:
        self.model, self.options = model, model.config.TRAIN
        self.loader, self.valid_loader = loader, valid_loader
        self.save_dir, self.seed = save_dir, seed
        self.log_interval, self.valid_interval, self.labels = log_interval, valid_interval, labels
        model.total_steps = self.steps_per_epoch * self.options.epoch
        if self.options.class_balance == "loss":
            labels_listed = [clip.label for clip in loader.dataset.clips]
            model.class_weights = class_weights(labels_listed, model.config.MODEL.num_classes)
        on_features = isinstance(loader, FeatureLoader)
        self.stepper = Stepper(model, normalize, steps, loader.dataset.clip_shape, on_features)
        self.ema = make_average(model.network, self.options.ema_decay)
        self.metrics = metric_classes(model.config.MODEL.metrics)
        self.progress = Progress()
        self.pending: list[tuple[int, Outcome]] = []  # (step, outcome), not yet counted
        self.losses: list[float] = []  # of each batch on all ranks, since the last log line
        self.counts = [0, 0, 0]  # clips, top-1 hits and top-5 hits since then
        self.journal: Journal | None = None  # of rank 0
        self.validated: Collector | None = None  # the last validation's clips
        self.data = resume.data_record(loader)

    @property
    def class_names(self) -> Sequence[str]:
        """The labels, or the class numbers."""
        return self.labels or [str(i) for i in range(self.model.config.MODEL.num_classes)]

    @property
    def steps_per_epoch(self) -> int:
        """Updates in an epoch."""
        return -(-len(self.loader) // self.options.accumulate_steps)

    @property
    def steps_in_epoch(self) -> int:
        """Updates of the current epoch that are done; a resumed run may begin within a group of batches."""
        done = self.progress.batch
        return self.steps_per_epoch if done == len(self.loader) else done // self.options.accumulate_steps

    # Resuming -----------------------------------------------------------------------------------------------------

    def resume(self, path: str, may_be_done: bool = False) -> None:
        """Resume from a checkpoint of this project, or start from bare weights of any format.

        Args:
            may_be_done: accept a checkpoint of the last epoch, of a run killed between its last epoch and its end.
        """
        state = checkpoint.load(path, self.model)
        if state is None:
            return
        restore_weights(self.model.network, state.get("ema"), path)
        self.restore(state)
        if self.progress.epoch >= self.options.epoch and not may_be_done:
            raise UserError(f"{path}: all {self.options.epoch} epochs are done", hint="raise --epoch to train on")
        if self.progress.epoch >= self.options.epoch:
            logger.info("%s: all %d epochs are done: there is nothing to train", path, self.options.epoch)

    def restore(self, state: State) -> None:
        """Restore everything but the weights from a checkpoint's state."""
        progress = state["progress"]
        batch = resume.next_batch(progress, self.data, self.loader.order, state.get("batch_size"))
        best, since_best = progress.get("best"), progress.get("since_best", 0)
        self.progress = Progress(progress["epoch"], progress["step"], batch, best, since_best)
        if "seed" in progress:
            self.seed = progress["seed"]
            logger.info("the order of the clips is that of the resumed run: seed %d", self.seed)
        elif batch:
            raise UserError("the checkpoint lies within an epoch, but does not hold the seed of its order")
        self.loader.set_seed(self.seed)
        self.stepper.load(state, self.progress.epoch * self.steps_per_epoch + self.steps_in_epoch)
        if "unlogged" in state:
            self.losses, self.counts = state["unlogged"]["losses"].tolist(), state["unlogged"]["counts"]
        self.ema.load(state.get("ema"))

    def start_facts(self) -> dict[str, int | str]:
        """Facts that must be equal on all ranks before the first step, as plain data."""
        digest = hashlib.sha256()
        for _, value in sorted(self.model.network.state_dict().items()):
            digest.update(np.ascontiguousarray(value.numpy()))
        at = self.progress
        facts: dict[str, int | str] = {"epoch": at.epoch, "step": at.step, "batch": at.batch}
        return {**facts, "clips": len(self.loader.dataset), "weights": digest.hexdigest()[:12]}

    # The loop -----------------------------------------------------------------------------------------------------

    def fit(self) -> dict[str, float]:
        """Train to the last epoch; save after each and every `save_interval` steps; validate every `valid_interval`.

        Returns:
            the last validation's scores, {} if there was none.

        Raises:
            Stopped: by a signal, after a checkpoint was written.
            UserError: a loss is not finite, or too many clips cannot be read.
        """
        scores: dict[str, float] = {}
        first_step = self.progress.step
        self.ema.start()  # from the weights that were loaded
        if parallel.rank() == 0:
            self.journal = Journal(self.save_dir, self.progress.step)
        try:
            with StopRequest(parallel.launchers()) as self.stop:
                while self.progress.epoch < self.options.epoch and not self.has_stalled():
                    self.train_epoch()
                    loader = self.loader_to_validate()
                    if loader is not None:
                        if not isinstance(loader, FeatureLoader):
                            self.save(f"step{self.progress.step}")  # validation can take long, and be killed
                        scores = self.validate(loader)
                    self.progress.epoch, self.progress.batch = self.progress.epoch + 1, 0
                    self.save(f"epoch{self.progress.epoch - 1}")
            self.save("final")
            self.report(was_trained=self.progress.step > first_step)
        finally:
            self.loader.close()
            if self.journal:
                self.journal.close()
        return scores

    def train_epoch(self) -> None:
        """Train to the end of the current epoch."""
        at, total = self.progress, len(self.loader)
        self.model.train()
        self.clock = Clock(at.step, self.counts[0])
        with contextlib.closing(self.loader.epoch(at.epoch, at.batch)) as batches:
            group: list[Batch] = []
            for batch in self.clock.waiting(batches):
                group.append(batch)
                read = at.batch + len(group)
                if read % self.options.accumulate_steps == 0 or read == total:
                    self.train_step(group)
                    at.batch += len(group)
                    group = []
                    self.after_step(last=at.batch == total)

    def train_step(self, group: Sequence[Batch]) -> None:
        """Update the weights from a group of batches."""
        runtime.seed_step(self.seed, self.progress.step, parallel.rank())
        self.rate = self.stepper.optimizer.get_lr()  # of this step, before the schedule advances
        outcomes = self.stepper.step(group)
        self.progress.step += 1
        self.pending += [(self.progress.step, outcome) for outcome in outcomes]
        self.ema.update()

    def after_step(self, last: bool) -> None:
        """Log, save and stop when due."""
        step = self.progress.step
        if step % self.log_interval == 0 or last:
            self.log()
        if self.options.save_interval and step % self.options.save_interval == 0 and not last:
            self.save(f"step{step}")
        if parallel.ranks() == 1 or step % _STOP_CHECK == 0 or last:
            number = parallel.max_over_ranks(self.stop.number)
            if number:
                self.save(f"step{step}")
                parallel.gather(None)  # a rank that ends would end the others before the checkpoint is written
                raise Stopped(number)

    def has_stalled(self) -> bool:
        """Return True after `patience` validations without a better top-1; the log says so."""
        at, patience = self.progress, self.options.patience
        if not patience or at.since_best < patience:
            return False
        logger.info(
            "no better top-1 than %.4f in %d validations: training ends after %d epochs",
            at.best,
            at.since_best,
            at.epoch,
        )
        return True

    def loader_to_validate(self) -> Loader | None:
        """The loader of the validation clips, if validation is due after this epoch."""
        epochs = self.progress.epoch + 1
        return self.valid_loader if self.valid_interval > 0 and epochs % self.valid_interval == 0 else None

    def validate(self, loader: Loader) -> dict[str, float]:
        """Validate after an epoch; the best network so far is saved as NAME_best."""
        at, network = self.progress, self.model.network
        parallel.share_statistics(network)
        with self.ema.applied():
            engine = Dygraph(self.stepper.network, self.stepper.normalize)
            self.validated = Collector(self.class_names, loader.bad)
            scores = evaluate(
                engine, loader, "valid", self.log_interval, self.stop_now, self.metrics, self.validated, RESERVED
            )
            at.since_best += 1
            if at.best is None or scores["TOP1_ACC"] > at.best:
                at.best, at.since_best = scores["TOP1_ACC"], 0
                self.save("best")
        logger.info("valid epoch %d: %s", at.epoch, format_scores(scores))
        if self.journal:
            names = {"TOP1_ACC": "top1", "TOP5_ACC": "top5"}
            row = {names.get(name, name): score for name, score in scores.items() if name != "count"}
            self.journal.write("valid", at.step, epoch=at.epoch, **row)
        return scores

    def stop_now(self) -> None:
        """Stop validation, before which a checkpoint was written, after a signal."""
        if self.stop.number:
            raise Stopped(self.stop.number)

    # Logging and saving -------------------------------------------------------------------------------------------

    def check_finite(self) -> list[float]:
        """The pending losses. Raises UserError at the first that is not finite."""
        losses = [float(outcome.loss) for _, outcome in self.pending]
        for (step, _), loss in zip(self.pending, losses):
            if not np.isfinite(loss):
                raise UserError(
                    f"the loss of step {step} (epoch {self.progress.epoch}) is {loss}: training stopped",
                    hint="a lower learning rate may help (--learning_rate)",
                )
        return losses

    def count_pending(self) -> None:
        """Add the pending outcomes of all ranks to `losses` and `counts`."""
        own_losses, scores = self.check_finite(), TopK()
        for _, outcome in self.pending:
            scores.update(outcome.logits.astype("float32").numpy(), outcome.labels.numpy())
        self.pending = []
        for losses, counts in parallel.gather((own_losses, [scores.count, scores.hits[1], scores.hits[5]])):
            self.losses += losses
            self.counts = [sum(pair) for pair in zip(self.counts, counts)]

    def log(self) -> None:
        """Log one line for the steps since the last one, over all ranks."""
        self.count_pending()
        losses, (clips, *hits) = self.losses, self.counts
        self.losses, self.counts = [], [0, 0, 0]
        if not losses:
            return
        loss, top1, top5 = math.fsum(losses) / len(losses), hits[0] / clips, hits[1] / clips
        at, per_epoch, done = self.progress, self.steps_per_epoch, self.steps_in_epoch
        left = (self.options.epoch - at.epoch) * per_epoch - done
        speed, waiting, eta = self.clock.read(at.step, clips, left)
        if self.journal:
            self.journal.write(
                "train", at.step, epoch=at.epoch, lr=self.rate, loss=loss, top1=top1, top5=top5, clips_per_s=speed,
                data_wait=waiting, memory_mb=runtime.memory_mb(), eta_s=eta,
            )  # fmt: skip
        logger.info(
            "train epoch %d step %d/%d loss %.9g top1 %.4f top5 %.4f lr %.4g, %.2f clips/s, data wait %.0f%%, ETA %s",
            at.epoch, done, per_epoch, loss, top1, top5, self.rate, speed, 100 * waiting, hours(eta),
        )  # fmt: skip

    def report(self, was_trained: bool) -> None:
        """Write training.html (rank 0 only); a failure is only warned of, as the trained weights are saved.

        Args:
            was_trained: by this process; otherwise an existing page stays.
        """
        evaluation = self.validated.evaluation() if self.validated else None
        path = os.path.join(self.save_dir, "training.html")
        if self.journal is None or (os.path.exists(path) and not was_trained):
            return
        try:
            final = os.path.join(self.save_dir, f"{self.model.config.MODEL.name.upper()}_final.pdparams")
            facts = [("Weights", os.path.abspath(final)), ("SHA-256", sha256_of(final)), ("Seed", str(self.seed))]
            write_training_report(path, read_journal(self.journal.path), evaluation, facts, self.model.config)
            logger.info("report: %s", path)
        except Exception as error:
            logger.warning("%s was not written: %s: %s", path, type(error).__name__, first_line(error))

    def save(self, suffix: str) -> None:
        """Write the checkpoint NAME_suffix (rank 0 only), and prune old ones."""
        self.count_pending()
        parallel.share_statistics(self.model.network)
        if parallel.rank():
            return
        name = self.model.config.MODEL.name.upper()
        with self.ema.applied() if suffix == "final" else contextlib.nullcontext():
            checkpoint.save(
                self.save_dir, f"{name}_{suffix}", self.model.network, self.state(), self.model.config, self.labels
            )
        logger.info("saved %s", os.path.join(self.save_dir, f"{name}_{suffix}.pdparams"))
        checkpoint.prune_old(self.save_dir, name, self.options.keep)

    def state(self) -> State:
        """Everything but the weights, as plain data for a checkpoint and `restore`."""
        starts = [*self.loader.order.starts(), self.data["clips"]]
        data = {**self.data, "clips_done": starts[self.progress.batch]}
        progress: dict[str, Any] = {**dataclasses.asdict(self.progress), "seed": self.seed, "data": data}
        unlogged = {"losses": np.array(self.losses), "counts": self.counts}
        return {"progress": progress, **self.stepper.state(), "ema": self.ema.state(), "unlogged": unlogged}
