"""The training loop."""

import contextlib
import hashlib
import logging
import os

import numpy as np
import paddle

from backends.engines import Dygraph
from core import parallel, runtime
from core.errors import UserError
from core.progress import Clock, format_scores, hours
from core.signals import Stopped, StopRequest
from engine import checkpoint, resume
from engine.ema import Ema
from engine.evaluator import evaluate
from engine.journal import Journal, plot
from engine.loading import start_training_from
from metrics import TopK, metric_classes

logger = logging.getLogger("stnet")
_STOP_CHECK = 10  # steps between the ranks' asking each other whether to stop


class Trainer:
    """Trains a model and writes its checkpoints.

    A step is one update of the weights, from `accumulate_steps` batches. Whatever is random depends on seed, epoch,
    clip and step alone, so that a run that goes on from a checkpoint takes the very steps it would have taken.

    Args:
        model: models.model.Model in training mode.
        normalize: backends.normalizer.Normalizer.
        loader: reader.loader.Loader of the training clips, this rank's share.
        valid_loader: of the validation clips, or None.
        steps: the two steps at which the learning rate falls.
        save_dir: where checkpoints go.
        seed: of this run.
        log_interval: steps between log lines.
        valid_interval: epochs between validations.
        labels: class names to save with the weights, or None.
    """

    def __init__(
        self, model, normalize, loader, valid_loader, steps, save_dir, seed,
        log_interval=10, valid_interval=1, labels=None,
    ):  # fmt: skip
        self.model, self.network, self.options = model, model.network, model.config.TRAIN
        self.normalize, self.loader, self.valid_loader = normalize, loader, valid_loader
        self.save_dir, self.name, self.seed = save_dir, model.config.MODEL.name.upper(), seed
        self.log_interval, self.valid_interval, self.labels = log_interval, valid_interval, labels
        self.is_main = parallel.rank() == 0
        if self.options.sync_bn and parallel.ranks() > 1:
            self.network = model.network = paddle.nn.SyncBatchNorm.convert_sync_batchnorm(self.network)
        self.optimizer, self.scheduler = model.optimizer(steps)
        self.amp = self.options.amp
        if self.amp != "off" and not paddle.get_device().startswith("gpu"):
            logger.warning("TRAIN.amp is %s, but the CPU computes in full precision: it is taken as off", self.amp)
            self.amp = "off"
        if self.amp == "O2":  # before DataParallel, which must see the final parameters
            self.network, self.optimizer = paddle.amp.decorate(
                self.network, self.optimizer, level="O2", dtype=self.options.amp_dtype, save_dtype="float32"
            )
        if self.options.to_static:
            self.network = model.network = paddle.jit.to_static(self.network, full_graph=True)
        use_scaler = self.amp != "off" and self.options.amp_dtype == "float16"
        self.scaler = paddle.amp.GradScaler(enable=use_scaler, init_loss_scaling=2.0**15)
        self.ema = Ema(self.network, self.options.ema_decay) if self.options.ema_decay else None
        self.parallel_network = paddle.DataParallel(self.network) if parallel.ranks() > 1 else self.network
        self.epochs = self.options.epoch
        self.epoch = 0  # epochs finished
        self.batch = 0  # batches of the current epoch done
        self.step = 0  # updates done
        self.best = None  # best validation top-1 so far
        self.pending = []  # (step, loss, logits, labels) since the last log line, still on the device
        self.journal = None
        self.metrics = metric_classes(model.config.MODEL.metrics)
        self.last_batch = None
        self.data = resume.data_record(loader) if loader else {}

    # Where to start -----------------------------------------------------------------------------------------------

    def resume(self, path, may_be_done=False):
        """Go on from a checkpoint of this project, or start from bare weights of any format.

        Args:
            path: of either.
            may_be_done: whether all epochs may be done; a run may be killed between its last epoch and its end.
        """
        state = checkpoint.load(path, self.model)
        if state is not None:
            self.restore(state)
            if self.epoch >= self.epochs and not may_be_done:
                raise UserError(f"--resume {path}: all {self.epochs} epochs are done; raise --epoch to train on")

    def restore(self, state):
        """Set everything but the weights from a checkpoint's state."""
        progress = state["progress"]
        self.epoch, self.step, self.best = progress["epoch"], progress["step"], progress.get("best")
        self.batch = resume.next_batch(progress, self.data, self.loader.order, state.get("batch_size"))
        if "seed" in progress:
            self.seed = progress["seed"]
            logger.info("the order of the clips goes on from the seed of that run, %d", self.seed)
        elif self.batch:
            raise UserError("the checkpoint lies within an epoch, but does not hold the seed of its order")
        self.loader.set_seed(self.seed)
        checkpoint.set_optimizer_state(self.network, self.optimizer, state["optimizer"])
        if state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])
        if self.ema and state.get("ema"):
            self.ema.load(state["ema"])

    def load_pretrained(self, path):
        """Start from other weights, see engine.loading.start_training_from."""
        start_training_from(self.model, path)

    def start_facts(self):
        """What every rank must have in common before the first step, as plain data."""
        digest = hashlib.sha256()
        for _, value in sorted(self.network.state_dict().items()):
            digest.update(np.ascontiguousarray(value.numpy()))
        progress = {"epoch": self.epoch, "step": self.step, "batch": self.batch}
        return {**progress, "clips": len(self.loader.dataset), "weights": digest.hexdigest()[:12]}

    # The loop -----------------------------------------------------------------------------------------------------

    def fit(self):
        """Train to the last epoch; save after each and every `save_interval` steps; validate every `valid_interval`.

        Returns:
            the last validation's scores, {} if there was none.

        Raises:
            Stopped: a signal asked for it; a checkpoint has been written.
            UserError: a loss is not finite, or the data is too bad.
        """
        scores = {}
        if self.ema and not self.ema.updates:
            self.ema = Ema(self.network, self.options.ema_decay)  # averages start from the weights that were loaded
        if self.is_main:
            self.journal = Journal(self.save_dir, self.step)
        try:
            with StopRequest(parallel.launchers()) as self.stop:
                while self.epoch < self.epochs:
                    self.train_epoch()
                    if self.is_time_to_validate():
                        self.save(f"step{self.step}")  # validation can take long; nothing of the epoch is lost
                        scores = self.validate()
                    self.epoch, self.batch = self.epoch + 1, 0
                    self.save(f"epoch{self.epoch - 1}")
            self.save("final")
            if self.is_main:
                logger.info("curves: %s", plot(self.save_dir))
        finally:
            self.loader.close()
            if self.journal:
                self.journal.close()
        return scores

    def train_epoch(self):
        """The rest of one epoch."""
        self.network.train()
        total = len(self.loader)
        self.clock = Clock(self.step)
        with contextlib.closing(self.loader.epoch(self.epoch, self.batch)) as batches:
            group = []
            for batch in self.clock.waiting(batches):
                group.append(batch)
                if len(group) == self.options.accumulate_steps or self.batch + len(group) == total:
                    self.train_step(group)
                    self.batch += len(group)
                    group = []
                    self.after_step(last=self.batch == total)

    def train_step(self, group):
        """Forward and backward of each batch of the group, then one update."""
        runtime.seed_step(self.seed, self.step, parallel.rank())
        for i, batch in enumerate(group):
            synced = i == len(group) - 1
            with contextlib.nullcontext() if synced or parallel.ranks() == 1 else self.parallel_network.no_sync():
                self.forward_backward(batch, 1 / len(group))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.clear_grad()
        self.scheduler.step()
        self.step += 1
        if self.ema:
            self.ema.update()

    def forward_backward(self, batch, share):
        """Add `share` of a batch's gradient; one without a readable clip adds none, but keeps the ranks together."""
        if not batch.indices:
            if parallel.ranks() == 1:
                return
            share = 0.0
            batch = self.last_batch or batch._replace(
                clips=paddle.zeros([1, *self.loader.dataset.clip_shape], "uint8"), labels=paddle.zeros([1], "int64")
            )
        self.last_batch = batch
        with paddle.amp.auto_cast(enable=self.amp != "off", level=self.amp if self.amp != "off" else "O1",
                                  dtype=self.options.amp_dtype):  # fmt: skip
            logits = self.parallel_network(self.normalize(batch.clips))
            loss = self.model.loss(logits.astype("float32") if self.amp != "off" else logits, batch.labels)
        self.scaler.scale(loss * share if share != 1 else loss).backward()
        if share:
            self.pending.append((self.step + 1, loss.detach(), logits.detach(), batch.labels))

    def after_step(self, last):
        """Log, save and stop, as far as it is time."""
        if self.step % self.log_interval == 0 or last:
            self.log()
        if self.options.save_interval and self.step % self.options.save_interval == 0 and not last:
            self.save(f"step{self.step}")
        if parallel.ranks() == 1 or self.step % _STOP_CHECK == 0 or last:
            number = parallel.any_rank(self.stop.number)
            if number:
                self.log()
                self.save(f"step{self.step}")
                parallel.gather(None)  # no rank leaves, and so ends the others, before the checkpoint is written
                raise Stopped(number)

    def is_time_to_validate(self):
        """Whether the epoch that ends is one of those after which validation runs."""
        return self.valid_loader is not None and self.valid_interval > 0 and (self.epoch + 1) % self.valid_interval == 0

    def validate(self):
        """Scores after an epoch; the best so far is saved as NAME_best."""
        parallel.share_statistics(self.network)
        with self.ema.applied() if self.ema else contextlib.nullcontext():
            engine = Dygraph(self.network, self.normalize)
            scores = evaluate(
                engine, self.valid_loader, "valid", self.log_interval, after_batch=self.stop_now, metrics=self.metrics
            )
            better = self.best is None or scores["TOP1_ACC"] > self.best
            self.best = scores["TOP1_ACC"] if better else self.best
            if better:
                self.save("best")
        logger.info("valid epoch %d: %s", self.epoch, format_scores(scores))
        if self.journal:
            names = {"TOP1_ACC": "top1", "TOP5_ACC": "top5"}
            row = {names.get(name, name): score for name, score in scores.items() if name != "count"}
            self.journal.write("valid", self.step, epoch=self.epoch, **row)
        return scores

    def stop_now(self):
        """Stop during validation, before which a checkpoint was written, if a signal asked for it."""
        if self.stop.number:
            raise Stopped(self.stop.number)

    # What is seen and kept ----------------------------------------------------------------------------------------

    def check_finite(self):
        """Stop at the first loss since the last check that is not finite. Returns the losses."""
        losses = [(step, float(loss)) for step, loss, _, _ in self.pending]
        for step, loss in losses:
            if not np.isfinite(loss):
                raise UserError(
                    f"the loss of step {step} (epoch {self.epoch}) is {loss}: training stopped; "
                    "a lower learning rate may help (--learning_rate)"
                )
        return [loss for _, loss in losses]

    def log(self):
        """One line for the steps since the last, over all ranks."""
        losses = self.check_finite()
        scores = TopK()
        for _, _, logits, labels in self.pending:
            scores.update(logits.astype("float32").numpy(), labels.numpy())
        self.pending = []
        reports = parallel.gather((losses, scores.state()))
        scores.merge([state for _, state in reports])
        losses = [loss for rank_losses, _ in reports for loss in rank_losses]
        if not losses:
            return
        result, per_epoch = scores.result(), -(-len(self.loader) // self.options.accumulate_steps)
        done = -(-self.batch // self.options.accumulate_steps)
        left = (self.epochs - self.epoch) * per_epoch - done
        speed, waiting, eta = self.clock.read(self.step, result["count"], left)
        row = {
            "epoch": self.epoch, "lr": self.optimizer.get_lr(), "loss": float(np.mean(losses)),
            "top1": result["TOP1_ACC"], "top5": result["TOP5_ACC"], "clips_per_s": speed, "data_wait": waiting,
            "memory_mb": runtime.memory_mb(), "eta_s": eta,
        }  # fmt: skip
        if self.journal:
            self.journal.write("train", self.step, **row)
        logger.info(
            "train epoch %d step %d/%d loss %.9g top1 %.4f top5 %.4f lr %.4g, %.2f clips/s, data wait %.0f%%, ETA %s",
            self.epoch, done, per_epoch, row["loss"], row["top1"], row["top5"], row["lr"], speed, 100 * waiting,
            hours(eta),
        )  # fmt: skip

    def save(self, suffix):
        """Write the checkpoint NAME_suffix (rank 0 only), and delete those that `keep` does not cover."""
        self.check_finite()
        parallel.share_statistics(self.network)
        if not self.is_main:
            return
        name = f"{self.name}_{suffix}"
        starts = [*self.loader.order.starts(), self.data["clips"]]
        progress = {
            "epoch": self.epoch, "step": self.step, "batch": self.batch, "best": self.best, "seed": self.seed,
            "data": {**self.data, "clips_done": starts[self.batch]},
        }  # fmt: skip
        state = {
            "progress": progress,
            "optimizer": checkpoint.optimizer_state(self.network, self.optimizer),
            "scaler": {k: checkpoint.plain(v) for k, v in (self.scaler.state_dict() or {}).items()},
            "ema": self.ema.state() if self.ema else None,
        }
        with self.ema.applied() if self.ema and suffix == "final" else contextlib.nullcontext():
            checkpoint.save(self.save_dir, name, self.network, state, self.model.config, self.labels)
        logger.info("saved %s", os.path.join(self.save_dir, name + ".pdparams"))
        self.forget_old()

    def forget_old(self):
        """Delete numbered checkpoints: beyond the last `keep` if it is set, and steps that an epoch has overtaken."""
        known, _ = checkpoint.numbered(self.save_dir, self.name)
        ends = {progress["step"] for progress, base in known if _is_epoch(base)}
        old = [base for progress, base in known if progress["step"] in ends and not _is_epoch(base)]
        found = [base for _, base in known if base not in old]
        if self.options.keep:
            old += found[: -self.options.keep]
        else:
            old += [base for base in found[:-1] if not _is_epoch(base)]
        for base in old:
            checkpoint.remove(base)


def _is_epoch(base):
    return "_epoch" in os.path.basename(base)
