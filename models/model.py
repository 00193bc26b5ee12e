"""What every model has: a network, a loss, an optimizer and a step schedule, all from the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.config import Config, ModelSection
from core.errors import UserError
from core.registry import Registry
from models.streaming import Streaming

if TYPE_CHECKING:
    import paddle

MODELS: Registry[type[Model]] = Registry("model")


class Model:
    """Base of the registered models. A subclass sets `Section` and `build_network`.

    Args:
        mode: "train", "valid", "test" or "infer"; decides whether the network starts in training mode.

    Attributes:
        network: input [B, seg_num, 3 * seglen, H, W] float32, output logits [B, num_classes].
    """

    Section: type[ModelSection] = ModelSection
    released: tuple[str, ...] = ()  # names of the released weights, the preferred first
    released_for: dict[str, Any] = {}  # MODEL keys that they fit
    pretrained: dict[int, str] = {}  # number of layers -> name of the released ImageNet weights

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

    def streaming(self, network: paddle.nn.Layer) -> Streaming | None:
        """How `network`, one of this model's, scores overlapping windows; None: it has no segments, and no timeline."""
        return None

    def original_names(self) -> dict[str, str]:
        """Original name -> structured name of every tensor of the network; empty where there is no original."""
        return {}

    def pretrained_name(self) -> str:
        """Name of the released weights to start training from. Raises UserError where there are none."""
        raise UserError(f"no weights to start {type(self).__name__} from are published: set --pretrain")

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
            (optimizer, learning-rate scheduler). The scheduler is stepped once per training step.
        """
        import paddle

        train = self.config.TRAIN
        rates = [train.learning_rate * train.learning_rate_decay**i for i in range(len(steps) + 1)]
        scheduler: paddle.optimizer.lr.LRScheduler = paddle.optimizer.lr.PiecewiseDecay(
            boundaries=list(steps), values=rates
        )
        if train.warmup_steps:
            scheduler = paddle.optimizer.lr.LinearWarmup(scheduler, train.warmup_steps, 0.0, train.learning_rate)
        optimizer = paddle.optimizer.Momentum(
            learning_rate=scheduler,
            momentum=train.momentum,
            parameters=self.network.parameters(),
            weight_decay=paddle.regularizer.L2Decay(train.l2_weight_decay),
            grad_clip=paddle.nn.ClipGradByGlobalNorm(train.clip_norm) if train.clip_norm else None,
            use_multi_tensor=train.fused_optimizer,
        )
        return optimizer, scheduler


def decay_steps(epochs: int, total_videos: int, batch_size: int) -> tuple[int, int]:
    """Steps after which the learning rate falls: 1/3 and 2/3 of the epochs, counted in steps as the original does.

    batch_size is the global one.
    """
    first = int(epochs / 3 * int(total_videos / batch_size + 1))
    return first, 2 * first
