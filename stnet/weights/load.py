"""Weights into a network. Nothing loads by halves: every tensor is there with the right shape, or nothing is set.

`fit` and `fit_for_finetuning` decide, and change nothing; `set_tensors` sets what they give.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stnet.utils.errors import UserError
from stnet.weights.formats import Tensors, Weights

if TYPE_CHECKING:
    import paddle

logger = logging.getLogger("stnet")
Shapes = Mapping[str, list[int]]  # of a network's tensors, by structured name


class Differences(NamedTuple):
    """Between the tensors of a file and those of a network."""

    missing: list[str]
    unexpected: list[str]
    other_shape: dict[str, tuple[list[int], list[int]]]  # name -> (in the file, in the network)

    def __str__(self) -> str:
        """In words, the first few of each kind; "" if there are none."""
        shapes = [f"{name} is {ours}, expected {expected}" for name, (ours, expected) in self.other_shape.items()]
        kinds = (("missing", self.missing), ("unexpected", self.unexpected), ("of another shape", shapes))
        return "; ".join(
            f"{len(items)} {word}: {', '.join(items[:4])}{', ...' if len(items) > 4 else ''}"
            for word, items in kinds
            if items
        )


def differences(tensors: Mapping[str, np.ndarray], shapes: Shapes) -> Differences:
    """What the tensors of a file lack, have beyond, and have in another shape than a network's."""
    pairs = {name: (list(tensors[name].shape), shape) for name, shape in shapes.items() if name in tensors}
    return Differences(
        [name for name in shapes if name not in tensors],
        [name for name in tensors if name not in shapes],
        {name: pair for name, pair in pairs.items() if pair[0] != pair[1]},
    )


def shapes_of(network: paddle.nn.Layer) -> dict[str, list[int]]:
    """Structured name -> shape of every tensor of a network."""
    return {name: list(value.shape) for name, value in network.state_dict().items()}


def fit(path: str, tensors: Tensors, shapes: Shapes) -> Tensors:
    """The tensors, if they are exactly those that the shapes tell of.

    Raises:
        UserError: listing missing, unexpected and mismatched tensors.
    """
    problems = str(differences(tensors, shapes))
    if problems:
        raise UserError(f"weights {path} do not fit the model: {problems}")
    return tensors


class Fit(NamedTuple):
    """What is to be set, and what is not."""

    tensors: Tensors
    new: list[str]  # tensors that keep their initial values


def fit_for_finetuning(weights: Weights, shapes: Shapes, head: str) -> Fit:
    """As fit, but without the tensors whose names begin with `head`, if one of them is for other classes."""
    other = [name for name in differences(weights.tensors, shapes).other_shape if name.startswith(head)]
    if not other:
        return Fit(fit(weights.path, weights.tensors, shapes), [])
    tensors = {name: tensor for name, tensor in weights.tensors.items() if not name.startswith(head)}
    body = {name: shape for name, shape in shapes.items() if not name.startswith(head)}
    return Fit(fit(weights.path, tensors, body), other)


def load_for_finetuning(network: paddle.nn.Layer, weights: Weights, head: str) -> None:
    """As load_weights, but a head for other classes keeps its initial values, which the log says."""
    tensors, new = fit_for_finetuning(weights, shapes_of(network), head)
    set_tensors(network, tensors)
    if new:
        classes = weights.tensors[new[-1]].shape[-1:]
        logger.info("%s is for %s classes: %s start anew", weights.path, *classes, ", ".join(new))


def load_weights(network: paddle.nn.Layer, weights: Weights) -> None:
    """Set every tensor of a network. Raises UserError if they do not fit; the network is then unchanged."""
    set_tensors(network, fit(weights.path, weights.tensors, shapes_of(network)))


def set_tensors(network: paddle.nn.Layer, tensors: Mapping[str, np.ndarray]) -> None:
    """Set those tensors of a network that `tensors` has; they are known to fit."""
    for name, value in network.state_dict().items():
        if name in tensors:
            value.set_value(np.ascontiguousarray(tensors[name]).astype(str(value.dtype).rsplit(".", 1)[-1]))
