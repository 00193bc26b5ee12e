"""Weights from a file into a network. Nothing loads by halves."""

import logging

import numpy as np

from core.errors import UserError
from weights.pickled import read_pickled

logger = logging.getLogger("stnet")


def read_weights(path):
    """Structured name -> array of a weight file. Raises UserError."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise UserError(f"weights {path} cannot be read: {error.strerror or error}") from None
    return read_pickled(data, path)


def load_into(network, tensors, path):
    """Set every parameter and moving statistic of `network` from `tensors` (structured name -> array).

    Raises:
        UserError: listing the missing, unexpected and mismatched names; the network is then unchanged.
    """
    state = network.state_dict()
    problems = _differences({name: list(value.shape) for name, value in state.items()}, tensors)
    if problems:
        raise UserError(f"weights {path} do not fit the model: {'; '.join(problems)}")
    for name, value in state.items():
        value.set_value(np.ascontiguousarray(tensors[name]).astype(_dtype(value)))


def _dtype(tensor):
    return str(tensor.dtype).rsplit(".", 1)[-1]


def _differences(shapes, tensors):
    missing = [name for name in shapes if name not in tensors]
    unexpected = [name for name in tensors if name not in shapes]
    wrong = [
        f"{name} is {list(tensors[name].shape)}, expected {shape}"
        for name, shape in shapes.items()
        if name in tensors and list(tensors[name].shape) != shape
    ]
    return [
        f"{len(names)} {word}: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
        for word, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", wrong))
        if names
    ]
