"""Base class of models: network, loss, optimizer and learning rate, from the configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from stnet.config import Config, ModelSection, TrainSection
from stnet.models.streaming import Streaming
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
            layer [B, C']), and `embedding_size`, C'.
    """

    Section: type[ModelSection] = ModelSection
    any_seg_num = True  # an export accepts any number of segments
    released: tuple[str, ...] = ()  # released weights, the preferred first
    released_for: dict[str, Any] = {}  # MODEL keys that they fit
    pretrained: tuple[str, ...] = ()  # released weights that training may start from

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

    def loss(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        """Mean cross entropy of logits [B, num_classes] and labels [B] int64, a scalar."""
        import paddle.nn.functional as F  # late, so that --help is instant

        return F.cross_entropy(logits, labels)

    def optimizer(self, steps: tuple[int, int]) -> tuple[paddle.optimizer.Optimizer, paddle.optimizer.lr.LRScheduler]:
        """Momentum with L2 decay on every trainable parameter (batch norm and biases too), as the original.

        Off by default: linear warm-up over `warmup_steps`, clipping of the gradient's global norm to `clip_norm`.

        Args:
            steps: at which the rate is multiplied by `learning_rate_decay`; see `decay_steps`.

        Returns:
            (optimizer, learning-rate scheduler). The scheduler is stepped once per training step, and in a resumed run
            first for all steps done.
        """
        import paddle

        train = self.config.TRAIN
        scheduler = paddle.optimizer.lr.LambdaDecay(1.0, lambda step: learning_rate(step, train, steps))
        optimizer = paddle.optimizer.Momentum(
            learning_rate=scheduler,
            momentum=train.momentum,
            parameters=self.network.parameters(),
            weight_decay=paddle.regularizer.L2Decay(train.l2_weight_decay),
            grad_clip=paddle.nn.ClipGradByGlobalNorm(train.clip_norm) if train.clip_norm else None,
        )
        return optimizer, scheduler


def learning_rate(step: int, train: TrainSection, falls: Sequence[int]) -> float:
    """Learning rate after `step` training steps: linear warm-up to the base rate, which decays at each of `falls`.

    The first of `warmup_steps` takes the base rate / warmup_steps, the last the base rate.
    """
    rate = train.learning_rate * train.learning_rate_decay ** sum(step >= fall for fall in falls)
    return rate * min(1.0, (step + 1) / max(1, train.warmup_steps))


def decay_steps(epochs: int, total_videos: int, batch_size: int) -> tuple[int, int]:
    """Steps at 1/3 and 2/3 of the epochs, as the original counts them, for a global batch_size."""
    first = int(epochs / 3 * int(total_videos / batch_size + 1))
    return first, 2 * first
