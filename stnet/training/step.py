"""One update of the weights: forward, backward, accumulation, mixed precision, ranks, optimizer."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import paddle

from stnet import parallel
from stnet.config import TrainSection
from stnet.models.model import Model
from stnet.models.normalizer import Normalizer
from stnet.reader.loader import Batch
from stnet.utils.errors import UserError

logger = logging.getLogger("stnet")
State = dict[str, Any]


class Outcome(NamedTuple):
    """Loss, logits and labels of a batch, on the device."""

    loss: paddle.Tensor
    logits: paddle.Tensor
    labels: paddle.Tensor


class HeadOnly(paddle.nn.Layer):
    """Features [B, seg_num, C] -> logits [B, num_classes], by the layers behind the backbone of a network."""

    def __init__(self, network: paddle.nn.Layer) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: paddle.Tensor) -> paddle.Tensor:
        """Classify."""
        return self.network.classify(features)


def as_they_are(features: Any) -> paddle.Tensor:
    """Features need no normalisation."""
    return paddle.to_tensor(features)


class Stepper:
    """Updates the weights of a model; on several ranks, through paddle.DataParallel.

    Args:
        model: its network is prepared for training, in place.
        steps: the two steps at which the learning rate falls.
        clip_shape: of a placeholder clip for a rank that has none to read.
        on_features: batches hold features of a frozen backbone (stnet.training.feature_cache) instead of clips.
    """

    def __init__(
        self,
        model: Model,
        normalize: Normalizer,
        steps: tuple[int, int],
        clip_shape: Sequence[int],
        on_features: bool = False,
    ) -> None:
        options = model.config.TRAIN
        self.model, self.clip_shape = model, clip_shape
        model.freeze()
        if options.sync_bn and parallel.ranks() > 1:
            model.network = paddle.nn.SyncBatchNorm.convert_sync_batchnorm(model.network)
        self.optimizer, self.scheduler = model.optimizer(steps)
        self.amp, self.amp_dtype = _amp(options), options.amp_dtype
        if self.amp == "O2":  # before DataParallel, which must see the final parameters
            model.network, self.optimizer = paddle.amp.decorate(
                model.network, self.optimizer, level="O2", dtype=self.amp_dtype, save_dtype="float32"
            )
        use_scaler = self.amp != "off" and self.amp_dtype == "float16"
        self.scaler = paddle.amp.GradScaler(enable=use_scaler, init_loss_scaling=2.0**15)
        self.normalize: Callable[[Any], paddle.Tensor] = as_they_are if on_features else normalize
        self.network = HeadOnly(model.network) if on_features else model.network
        self.wrapped = paddle.DataParallel(self.network) if parallel.ranks() > 1 else self.network
        self.last_batch: Batch | None = None

    def step(self, group: Sequence[Batch]) -> list[Outcome]:
        """Run forward and backward on each batch of a group, then update. Returns the outcomes of batches with clips.

        The gradient is the mean over the readable clips of all batches and ranks; without any, nothing is updated.
        """
        *first, last = group
        alone = parallel.ranks() == 1
        clips = sum(len(batch.indices) for batch in group)
        total = clips if alone else parallel.total(clips)
        outcomes: list[Outcome | None] = []
        if clips or float(total):  # `total` is read only without own clips, as that waits for the device
            with contextlib.nullcontext() if alone else self.wrapped.no_sync():
                outcomes = [self._add_gradient(batch, total) for batch in first]
            outcomes.append(self._add_gradient(last, total))
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.clear_grad()
        self.scheduler.step()
        return [outcome for outcome in outcomes if outcome]

    def _add_gradient(self, batch: Batch, total: float | paddle.Tensor) -> Outcome | None:
        """Add a batch's share of the mean gradient over `total` clips.

        A batch without a readable clip adds none; on several ranks, which wait for each other, another batch replaces
        it with weight 0, and the statistics of batch norm are restored.
        """
        if batch.indices:
            self.last_batch = batch
            return self._backward(batch, len(batch.indices) * parallel.ranks() / total)  # the ranks' mean is taken
        if parallel.ranks() > 1:
            placeholder = self.last_batch or self._placeholder(batch)
            network = self.model.network  # batch norm's statistics are parameters that are not trained
            saved = [(p, p.clone()) for p in (*network.parameters(), *network.buffers()) if p.stop_gradient]
            self._backward(placeholder, 0.0)
            for p, before in saved:
                p.set_value(before)
        return None

    def _placeholder(self, batch: Batch) -> Batch:
        """A batch without clips has features in their shape, but no clips in theirs."""
        if isinstance(self.network, HeadOnly):
            return batch
        return batch._replace(clips=paddle.zeros([1, *self.clip_shape], "uint8"), labels=paddle.zeros([1], "int64"))

    def _backward(self, batch: Batch, share: float | paddle.Tensor) -> Outcome:
        mixed = self.amp != "off"
        with paddle.amp.auto_cast(enable=mixed, level=self.amp if mixed else "O1", dtype=self.amp_dtype):
            logits = self.wrapped(self.normalize(batch.clips))
            loss = self.model.loss(logits.astype("float32") if mixed else logits, batch.labels)
        self.scaler.scale(loss * share).backward()
        return Outcome(loss.detach(), logits.detach(), batch.labels)

    def state(self) -> State:
        """Plain data for a checkpoint."""
        scaler = {key: _plain(value) for key, value in (self.scaler.state_dict() or {}).items()}
        return {"optimizer": optimizer_state(self.model.network, self.optimizer), "scaler": scaler}

    def load(self, state: State, steps: int) -> None:
        """Resume from `state`, except the schedule, which advances by `steps`. Raises UserError for another model's."""
        for _ in range(steps):
            self.scheduler.step()
        schedule = {"LR_Scheduler": self.scheduler.state_dict()}
        set_optimizer_state(self.model.network, self.optimizer, {**state["optimizer"], **schedule})
        if state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])


def _amp(options: TrainSection) -> str:
    if options.amp != "off" and not paddle.get_device().startswith("gpu"):
        logger.warning("TRAIN.amp is %s, but the CPU computes in full precision: it is taken as off", options.amp)
        return "off"
    return options.amp


def optimizer_state(network: paddle.nn.Layer, optimizer: paddle.optimizer.Optimizer) -> State:
    """An optimizer's state as plain data, by structured names: Paddle's own names differ from process to process."""
    owners = sorted(((p.name, name) for name, p in network.named_parameters()), key=lambda pair: -len(pair[0]))

    def structured(key: str) -> str:
        for own, name in owners:
            if key == own or key.startswith(own + "_"):
                return f"{name}/{key[len(own) :].lstrip('_')}"
        return key

    def renamed(state: State) -> State:
        return {
            structured(key): renamed(value) if isinstance(value, dict) else _plain(value)
            for key, value in state.items()
        }

    return renamed(optimizer.state_dict())


def set_optimizer_state(network: paddle.nn.Layer, optimizer: paddle.optimizer.Optimizer, state: State) -> None:
    """Set an optimizer's state, as optimizer_state returns it. Raises UserError if it is of another model."""
    own = {name: p.name for name, p in network.named_parameters()}

    def paddle_name(key: str) -> str:
        name, slash, accumulator = key.partition("/")
        if slash and name not in own:
            raise UserError(f"the checkpoint holds the optimizer's state of {name}, which the model does not have")
        return "_".join(filter(None, (own[name], accumulator))) if slash else key

    def renamed(state: State) -> State:
        return {paddle_name(key): renamed(value) if isinstance(value, dict) else value for key, value in state.items()}

    optimizer.set_state_dict(renamed(state))


def _plain(value: Any) -> Any:
    """Convert a tensor to an array, a NumPy number to a Python one."""
    if isinstance(value, paddle.Tensor):
        return value.numpy()
    return value.item() if isinstance(value, np.generic) else value
