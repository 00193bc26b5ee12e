"""Logits of a network in dygraph mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Union

import numpy as np
import paddle

Clips = Union[np.ndarray, paddle.Tensor]  # uint8 [B, seg_num, 3 * seglen, H, W]


class Dygraph:
    """Runs a network in dygraph mode, on its own device.

    Args:
        network: returns logits; put into evaluation mode at each call.
        normalize: converts clips to its input.
    """

    name = "paddle, the network as it is"

    def __init__(self, network: paddle.nn.Layer, normalize: Callable[[Any], paddle.Tensor]) -> None:
        self.network, self.normalize = network, normalize

    def __call__(self, clips: Clips) -> np.ndarray:
        """uint8 clips -> logits [B, num_classes] float32."""
        self.network.eval()
        with paddle.no_grad():
            return self.network(self.normalize(paddle.to_tensor(clips))).astype("float32").numpy()
