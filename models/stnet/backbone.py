"""Weights of an ImageNet ResNet to start training a StNet from."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from stnet.models.model import Backbone

# Names of the backbone, structured or original; not fc
_BACKBONE = re.compile(r"(conv1|bn1|layer\d)\.|(res|bn)\d|(bn_)?conv1_")


def from_resnet(tensors: Mapping[str, np.ndarray], shapes: Mapping[str, list[int]]) -> Backbone | None:
    """Fit the convolutions and batch norms of a ResNet; None for the tensors of a StNet.

    conv1 [64, 3, 7, 7] is inflated to the network's 3 * seglen channels. The temporal blocks, the Xception block and
    fc keep their initial values.

    Args:
        tensors: of a file, by structured name.
        shapes: of the network.
    """
    if any(name.startswith("temporal") for name in tensors):
        return None
    backbone = {name: tensor for name, tensor in tensors.items() if _BACKBONE.match(name)}
    if "conv1.weight" in backbone:
        backbone["conv1.weight"] = inflate(backbone["conv1.weight"], shapes["conv1.weight"][1])
    return Backbone([name for name in shapes if _BACKBONE.match(name)], backbone)


def inflate(weight: np.ndarray, channels: int) -> np.ndarray:
    """Inflate conv1 of ImageNet [C, 3, h, w] to super-images [C, channels, h, w]: mean over colours / seglen."""
    if weight.ndim != 4 or weight.shape[1] == channels:
        return weight
    seglen = channels // 3
    return np.repeat(weight.mean(axis=1, keepdims=True) / seglen, channels, axis=1).astype(weight.dtype)
