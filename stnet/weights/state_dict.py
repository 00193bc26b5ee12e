"""Load tensors into a network: all of them, checked by name and shape, or none.

`compatible` and `compatible_for_finetuning` only check; `set_tensors` sets the tensors that they return.
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
    """Differences between the tensors of a file and those of a network."""

    missing: list[str]
    unexpected: list[str]
    other_shape: dict[str, tuple[list[int], list[int]]]  # name -> (in the file, in the network)

    def __str__(self) -> str:
        """The first four of each kind, for messages; "" if there are none."""
        shapes = [f"{name} is {found}, expected {expected}" for name, (found, expected) in self.other_shape.items()]
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": shapes}
        texts = []
        for kind, items in kinds.items():
            if items:
                texts.append(f"{len(items)} {kind}: {', '.join(items[:4])}{', ...' if len(items) > 4 else ''}")
        return "; ".join(texts)


def differences(tensors: Mapping[str, np.ndarray], shapes: Shapes) -> Differences:
    """Compare the tensors of a file with the shapes of a network's."""
    pairs = {name: (list(tensors[name].shape), shape) for name, shape in shapes.items() if name in tensors}
    return Differences(
        [name for name in shapes if name not in tensors],
        [name for name in tensors if name not in shapes],
        {name: pair for name, pair in pairs.items() if pair[0] != pair[1]},
    )


def shapes_of(network: paddle.nn.Layer) -> dict[str, list[int]]:
    """Structured name -> shape of every tensor of a network."""
    return {name: list(value.shape) for name, value in network.state_dict().items()}


def compatible(path: str, tensors: Tensors, shapes: Shapes) -> Tensors:
    """Check that the tensors' names and shapes are those of a network, and return them.

    Raises:
        UserError: lists missing, unexpected and mismatched tensors.
    """
    problems = str(differences(tensors, shapes))
    if problems:
        raise UserError(f"weights {path} do not fit the model: {problems}")
    return tensors


def compatible_for_finetuning(weights: Weights, shapes: Shapes, head: str) -> tuple[Tensors, list[str]]:
    """`compatible`, but without the tensors whose names begin with `head` if one of them is for other classes.

    Returns:
        (tensors to set, names of those for other classes, which keep their initial values).
    """
    other = [name for name in differences(weights.tensors, shapes).other_shape if name.startswith(head)]
    if not other:
        return compatible(weights.path, weights.tensors, shapes), []
    tensors = {name: tensor for name, tensor in weights.tensors.items() if not name.startswith(head)}
    body = {name: shape for name, shape in shapes.items() if not name.startswith(head)}
    return compatible(weights.path, tensors, body), other


def load_for_finetuning(network: paddle.nn.Layer, weights: Weights, head: str) -> None:
    """`load_weights`, but the head keeps its initial values if it is for other classes, which is logged."""
    tensors, new = compatible_for_finetuning(weights, shapes_of(network), head)
    set_tensors(network, tensors)
    if new:
        classes = weights.tensors[new[-1]].shape[-1:]
        logger.info("%s is for %s classes: %s start anew", weights.path, *classes, ", ".join(new))


def load_weights(network: paddle.nn.Layer, weights: Weights) -> None:
    """Set all tensors of a network. Raises UserError if they do not fit; the network is then unchanged."""
    set_tensors(network, compatible(weights.path, weights.tensors, shapes_of(network)))


def set_tensors(network: paddle.nn.Layer, tensors: Mapping[str, np.ndarray]) -> None:
    """Set the tensors of a network that are in `tensors`, which has passed `compatible`."""
    for name, value in network.state_dict().items():
        if name in tensors:
            value.set_value(np.ascontiguousarray(tensors[name]).astype(str(value.dtype).rsplit(".", 1)[-1]))
