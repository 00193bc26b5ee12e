"""Base class of models: network, loss, optimizer and learning rate, from the configuration."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from stnet.config import Config, ModelSection, TrainSection
from stnet.models.streaming import Streaming
from stnet.utils.errors import UserError
from stnet.utils.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    import paddle

MODELS: Registry[type[Model]] = Registry("model")


class Backbone(NamedTuple):
    """Weights of another network to start training from."""

    names: list[str]  # tensors of this network that start from them, all required
    tensors: dict[str, np.ndarray]  # by structured name, in the shapes of this network


class Model:
    """Base of the registered models. A subclass gives `build_network`, and `Section` if it has keys of its own.

    All else that is specific to a model has a default here.

    Args:
        mode: "train", "valid", "test" or "infer"; only "train" starts in training mode.

    Attributes:
        network: input [B, seg_num, 3 * seglen, H, W] float32, output logits [B, num_classes]. If it gives features, it
            has `embed`, from the same input to (features of the segments [B, seg_num, C], input of the last linear
            layer [B, C']), and `embedding_size`, C'. If it trains on cached features, it has `classify`, from the
            features of the segments to logits.
    """

    Section: type[ModelSection] = ModelSection
    any_seg_num = True  # an export accepts any number of segments
    released: tuple[str, ...] = ()  # released weights, the preferred first
    released_for: dict[str, Any] = {}  # MODEL keys that they fit
    pretrained: tuple[str, ...] = ()  # released weights that training may start from
    places: dict[str, tuple[str, ...]] = {}  # TRAIN.freeze -> name prefixes of the tensors that it keeps fixed

    class_weights: list[float] | None = None  # of TRAIN.class_balance
    total_steps = 0  # updates of the run that trains it

    def __init__(self, config: Config, mode: str) -> None:
        config.section(mode)  # raises for an unknown mode
        self.config = config
        self.mode = mode
        self.network = self.build_network()
        if mode != "train":
            self.network.eval()

    def build_network(self) -> paddle.nn.Layer:
        """Build the network for `self.config`."""
        raise NotImplementedError

    @property
    def seglen(self) -> int:
        """Number of frames in a super-image."""
        return cast(int, self.config.section(self.mode).seglen)  # filled in from MODEL

    @property
    def head(self) -> str:
        """Name prefix of the tensors that are initialised anew for other classes: by default the last layer."""
        last = list(self.network.state_dict())[-1]
        layer, dot, _ = last.rpartition(".")
        return layer + dot or last

    def own_settings(self) -> dict[str, Any]:
        """MODEL keys of this model alone. Weights made with other values are refused."""
        common = {field.name for field in dataclasses.fields(ModelSection)}
        own = [field.name for field in dataclasses.fields(self.Section) if field.name not in common]
        return {name: getattr(self.config.MODEL, name) for name in own}

    def streaming(self) -> Streaming | None:
        """Network in stages that score overlapping windows; None: no timelines."""
        return None

    def original_names(self) -> dict[str, str]:
        """Original name -> structured name of every tensor of the network; empty without an original."""
        return {}

    def backbone(self, tensors: Mapping[str, np.ndarray], shapes: Mapping[str, list[int]]) -> Backbone | None:
        """Fit weights of another network, to start training from; None if they are of this model.

        Args:
            tensors: by structured name.
            shapes: of this network's tensors.
        """
        return None

    def pretrained_name(self) -> str:
        """Released weights to start training from, or "". Raises UserError if none are for this configuration."""
        return self.pretrained[0] if self.pretrained else ""

    def frozen(self, place: str) -> tuple[str, ...]:
        """Name prefixes of the tensors up to a place of TRAIN.freeze. Raises UserError if there is no such place."""
        if place == "none":
            return ()
        if place not in self.places:
            known = ", ".join(["none", *self.places])
            raise UserError(f"TRAIN.freeze {place}: {self.config.MODEL.name} has no such place; known: {known}")
        return self.places[place]

    def freeze(self) -> None:
        """Exclude the tensors up to TRAIN.freeze from training."""
        prefixes = self.frozen(self.config.TRAIN.freeze)
        for name, parameter in self.network.named_parameters():
            if name.startswith(prefixes):
                parameter.stop_gradient = True
                parameter.trainable = False

    def train(self) -> None:
        """Put the network into training mode, its frozen layers into evaluation mode: their statistics stay."""
        self.network.train()
        prefixes = self.frozen(self.config.TRAIN.freeze)
        for name, layer in self.network.named_sublayers():
            if f"{name}.".startswith(prefixes):
                layer.eval()

    def loss(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        """Mean cross entropy of logits [B, num_classes] and labels [B] int64, a scalar.

        With TRAIN.label_smoothing, of smoothed labels; with TRAIN.class_balance, weighted by `class_weights`. The mean
        is over the clips, not the weights, so that it does not depend on how clips are put together to batches.
        """
        import paddle  # late, so that --help is instant
        import paddle.nn.functional as F

        smoothing = self.config.TRAIN.label_smoothing
        if self.class_weights is None and not smoothing:
            return F.cross_entropy(logits, labels)
        targets = F.one_hot(labels, logits.shape[1]) * (1 - smoothing) + smoothing / logits.shape[1]
        losses = -(targets * F.log_softmax(logits, axis=1)).sum(axis=1)
        if self.class_weights is not None:
            losses = losses * paddle.to_tensor(self.class_weights, "float32").gather(labels)
        return losses.mean()

    def optimizer(self, steps: tuple[int, int]) -> tuple[paddle.optimizer.Optimizer, paddle.optimizer.lr.LRScheduler]:
        """Momentum with L2 decay on every trainable parameter (batch norm and biases too), as the original.

        By TRAIN, AdamW without decay on batch norm and biases. Off by default: linear warm-up over `warmup_steps`,
        clipping of the gradient's global norm to `clip_norm`.

        Args:
            steps: at which the rate is multiplied by `learning_rate_decay`; see `decay_steps`.

        Returns:
            (optimizer, learning-rate scheduler). The scheduler is stepped once per training step, and in a resumed run
            first for all steps done.
        """
        import paddle

        train, total = self.config.TRAIN, self.total_steps
        scheduler = paddle.optimizer.lr.LambdaDecay(1.0, lambda step: learning_rate(step, train, steps, total))
        common = {
            "learning_rate": scheduler,
            "parameters": self.network.parameters(),
            "grad_clip": paddle.nn.ClipGradByGlobalNorm(train.clip_norm) if train.clip_norm else None,
        }
        if train.optimizer == "adamw":
            decayed = {parameter.name for parameter in self.network.parameters() if len(parameter.shape) > 1}
            adamw = paddle.optimizer.AdamW(
                weight_decay=train.l2_weight_decay, apply_decay_param_fun=decayed.__contains__, **common
            )
            return adamw, scheduler
        decay = paddle.regularizer.L2Decay(train.l2_weight_decay)
        return paddle.optimizer.Momentum(momentum=train.momentum, weight_decay=decay, **common), scheduler


def learning_rate(step: int, train: TrainSection, falls: Sequence[int], total: int = 0) -> float:
    """Learning rate after `step` training steps: linear warm-up to the base rate, then TRAIN.schedule.

    The first of `warmup_steps` takes the base rate / warmup_steps, the last the base rate.

    Args:
        falls: steps at each of which a rate by `step` decays.
        total: steps of the run, at the end of which a rate by `cosine` is 0.
    """
    if train.schedule == "cosine":
        done = min(1.0, max(0, step - train.warmup_steps) / max(1, total - train.warmup_steps))
        rate = train.learning_rate * (1 + math.cos(math.pi * done)) / 2
    else:
        rate = train.learning_rate * train.learning_rate_decay ** sum(step >= fall for fall in falls)
    return rate * min(1.0, (step + 1) / max(1, train.warmup_steps))


def class_weights(labels: Sequence[int], num_classes: int) -> list[float]:
    """Weight of each class's clips in the loss: N / (classes present * clips of the class), 0 without clips.

    Raises:
        UserError: labels are inside the files, and so not known.
    """
    if any(label < 0 for label in labels):
        raise UserError("TRAIN.class_balance needs the labels in the list, and this format has them inside the files")
    counts = [0] * num_classes
    for label in labels:
        counts[label] += 1
    present = sum(count > 0 for count in counts)
    return [len(labels) / (present * count) if count else 0.0 for count in counts]


def decay_steps(epochs: int, total_videos: int, batch_size: int) -> tuple[int, int]:
    """Steps at 1/3 and 2/3 of the epochs, as the original counts them, for a global batch_size."""
    first = int(epochs / 3 * int(total_videos / batch_size + 1))
    return first, 2 * first
