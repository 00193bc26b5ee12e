"""Multiply-adds of a network, counted while it runs once."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import paddle
from paddle import nn


def count_macs(network: nn.Layer, shape: Sequence[int]) -> int:
    """Count the multiply-adds of convolutions and linear layers for one input, as papers do.

    Args:
        network: a layer with a method `macs(input shape)` is counted by it.
        shape: of the input.
    """
    total = 0

    def note(layer: nn.Layer, inputs: tuple[paddle.Tensor, ...], output: paddle.Tensor) -> None:
        nonlocal total
        if hasattr(layer, "macs"):
            total += layer.macs(inputs[0].shape)
        elif isinstance(layer, (nn.Conv1D, nn.Conv2D, nn.Conv3D)):
            total += prod(output.shape) * prod(layer.weight.shape[1:])
        elif isinstance(layer, nn.Linear):
            total += prod(output.shape) * layer.weight.shape[0]

    hooks = [layer.register_forward_post_hook(note) for layer in network.sublayers(include_self=True)]
    was_training = network.training
    network.eval()
    try:
        with paddle.no_grad():
            network(paddle.zeros(shape))
    finally:
        for hook in hooks:
            hook.remove()
        if was_training:
            network.train()
    return total
