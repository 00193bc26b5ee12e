"""What every model has: a network, a loss, an optimizer and a step schedule, all from the configuration."""

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
    """What the weights of another network give this one."""

    names: list[str]  # tensors of this network that start from them: all must be there
    tensors: dict[str, np.ndarray]  # by structured name, fitted to this network


class Model:
    """Base of the registered models. A subclass gives `build_network`, and `Section` if it has keys of its own.

    All else has a default, and is the one place where the other rooms learn what is true of this model alone.

    Args:
        mode: "train", "valid", "test" or "infer"; decides whether the network starts in training mode.

    Attributes:
        network: input [B, seg_num, 3 * seglen, H, W] float32, output logits [B, num_classes]. One that gives features
            has `embed`, from the same input to (features of the segments [B, seg_num, C], what the last linear layer
            takes [B, C']), and `embedding_size`, C'.
    """

    Section: type[ModelSection] = ModelSection
    any_seg_num = True  # whether an export may take another number of segments than it was made with
    released: tuple[str, ...] = ()  # names of the released weights, the preferred first
    released_for: dict[str, Any] = {}  # MODEL keys that they fit
    pretrained: tuple[str, ...] = ()  # names of the released weights that training may start from

    def __init__(self, config: Config, mode: str) -> None:
        config.section(mode)  # an unknown mode is refused here
        self.config = config
        self.mode = mode
        self.network = self.build_network()
        if mode != "train":
            self.network.eval()

    def build_network(self) -> paddle.nn.Layer:
        """The network for `self.config`."""
        raise NotImplementedError

    @property
    def seglen(self) -> int:
        """Frames in a super-image, in the section of this mode."""
        return cast(int, self.config.section(self.mode).seglen)  # filled in from MODEL

    @property
    def head(self) -> str:
        """What the names of those tensors begin with that start anew for other classes: by default the last layer's."""
        last = list(self.network.state_dict())[-1]
        layer, dot, _ = last.rpartition(".")
        return layer + dot or last

    def own_settings(self) -> dict[str, Any]:
        """The MODEL keys that this model alone has. Weights are refused where they were made with other values."""
        common = {field.name for field in dataclasses.fields(ModelSection)}
        own = [field.name for field in dataclasses.fields(self.Section) if field.name not in common]
        return {name: getattr(self.config.MODEL, name) for name in own}

    def streaming(self) -> Streaming | None:
        """The network in parts that score overlapping windows; None: it has no segments, and so no timeline."""
        return None

    def original_names(self) -> dict[str, str]:
        """Original name -> structured name of every tensor of the network; empty where there is no original."""
        return {}

    def backbone(self, tensors: Mapping[str, np.ndarray], shapes: Mapping[str, list[int]]) -> Backbone | None:
        """What the tensors of another network, by structured name, give this one to start training from.

        None where they are those of this very model, but perhaps for other classes: the default.

        Args:
            shapes: of this network's tensors.
        """
        return None

    def pretrained_name(self) -> str:
        """Name of the released weights to start training from; "" where there are none: from random values.

        Raises UserError where there are some, but not for this configuration.
        """
        return self.pretrained[0] if self.pretrained else ""

    def loss(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        """Mean cross entropy of logits [B, num_classes] and labels [B] int64, a scalar."""
        import paddle.nn.functional as F

        return F.cross_entropy(logits, labels)

    def optimizer(self, steps: tuple[int, int]) -> tuple[paddle.optimizer.Optimizer, paddle.optimizer.lr.LRScheduler]:
        """Momentum with L2 decay on every trainable parameter (batch norm and biases too), as the original.

        Off by default: linear warm-up over `warmup_steps`, clipping of the gradient's global norm to `clip_norm`.

        Args:
            steps: at which the rate is multiplied by `learning_rate_decay`; see `decay_steps`.

        Returns:
            (optimizer, learning-rate scheduler). The scheduler is stepped once per training step. Its state is not
            restored: a run that is resumed steps a new one as often as training steps are done.
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
    """Rate of the training step after `step` others: linear warm-up to the base rate, which falls at each of `falls`.

    The first of `warmup_steps` takes the base rate / warmup_steps, the last the base rate. Warm-up moves no fall.
    """
    rate = train.learning_rate * train.learning_rate_decay ** sum(step >= fall for fall in falls)
    return rate * min(1.0, (step + 1) / max(1, train.warmup_steps))


def decay_steps(epochs: int, total_videos: int, batch_size: int) -> tuple[int, int]:
    """Steps after which the learning rate falls: 1/3 and 2/3 of the epochs, counted in steps as the original does.

    batch_size is the global one.
    """
    first = int(epochs / 3 * int(total_videos / batch_size + 1))
    return first, 2 * first
