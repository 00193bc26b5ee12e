"""Features of clips by any engine: the network without its classifier."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import paddle
from paddle import nn

from stnet.backends.engines import make_engine
from stnet.backends.program import clip_sizes
from stnet.utils.errors import USE_PADDLE, UserError

if TYPE_CHECKING:
    from stnet.config import ReaderSection
    from stnet.models.dygraph import Clips
    from stnet.models.model import Model

    Embed = Callable[[Clips], tuple[np.ndarray, np.ndarray]]


class Embedder(nn.Layer):
    """Normalised clips [B, T, 3 * seglen, H, W] -> [B, C' + T * C], the features of the clip, then of the segments.

    Args:
        network: with `embed`, see stnet.models.model.Model.
    """

    def __init__(self, network: nn.Layer) -> None:
        super().__init__()
        self.network = network

    def forward(self, clips: paddle.Tensor) -> paddle.Tensor:
        """Concatenate the features: engines return one array."""
        segments, whole = self.network.embed(clips)
        return paddle.concat([whole, segments.flatten(1)], axis=1)


def make_embedder(name: str, model: Model, section: ReaderSection, digest: str = "") -> Embed:
    """Make a function to float32 features (of the segments [B, T, C], of the clips [B, C']).

    Arguments as stnet.backends.engines.make_engine.

    Raises:
        UserError: the network does not give features, or the engine does not work here.
    """
    if not hasattr(model.network, "embed"):
        raise UserError(f"the network of {model.config.MODEL.name} has no `embed`, and so gives no features")
    without_classifier = copy.copy(model)
    without_classifier.network = Embedder(model.network)
    compute = make_engine(name, without_classifier, section, digest=digest)
    size, (seg_num, _, _) = model.network.embedding_size, clip_sizes(section)

    def embed(clips: Clips) -> tuple[np.ndarray, np.ndarray]:
        rows = compute(clips)
        if rows.shape[1] <= size or (rows.shape[1] - size) % seg_num:
            raise UserError(
                f"the engine gave no features: {list(rows.shape)}, not {size} and {seg_num} rows", USE_PADDLE
            )
        return rows[:, size:].reshape(len(rows), seg_num, -1), rows[:, :size]

    return embed
