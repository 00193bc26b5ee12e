"""Exponential moving average of weights."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import paddle

from stnet.utils.errors import UserError

logger = logging.getLogger("stnet")


class NoEma:
    """Interface of Ema for a run without averages: does nothing."""

    def start(self) -> None:
        """Do nothing."""

    def update(self) -> None:
        """Do nothing."""

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Leave the network as it is."""
        yield

    def state(self) -> None:
        """Return None."""

    def load(self, state: dict[str, Any] | None) -> None:
        """Drop the averages of the resumed run."""


class Ema:
    """Averages of the trained parameters.

    Args:
        decay: of the average; the usual correction makes early averages follow faster.
    """

    def __init__(self, network: paddle.nn.Layer, decay: float) -> None:
        self.network, self.decay, self.updates = network, decay, 0
        self.replaced: dict[str, paddle.Tensor] = {}  # the trained weights, while the network holds the averages
        self.start()

    def start(self) -> None:
        """Set the averages to the current weights before the first step, unless `load` has set them."""
        if not self.updates:
            self.averages = {name: p.detach().astype("float32").clone() for name, p in self._trained()}

    def _trained(self) -> list[tuple[str, paddle.Tensor]]:
        return [(name, p) for name, p in self.network.named_parameters() if not p.stop_gradient]

    @paddle.no_grad()
    def update(self) -> None:
        """Update the averages after a training step."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, p in self._trained():
            average = self.averages[name]
            average.set_value(average * decay + p.astype("float32") * (1 - decay))

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Context in which the network holds the averages."""
        self.replaced = {name: p.detach().clone() for name, p in self._trained()}
        for name, p in self._trained():
            p.set_value(self.averages[name].astype(p.dtype))
        try:
            yield
        finally:
            for name, p in self._trained():
                p.set_value(self.replaced[name])
            self.replaced = {}

    def state(self) -> dict[str, Any]:
        """Plain data for a checkpoint, with the trained weights while the network holds the averages."""
        state = {"updates": self.updates, "averages": {name: v.numpy() for name, v in self.averages.items()}}
        if self.replaced:
            state["weights"] = {name: v.astype("float32").numpy() for name, v in self.replaced.items()}
        return state

    def load(self, state: dict[str, Any] | None) -> None:
        """Resume from `state`, None of a run without averages."""
        if state:
            self.updates = state["updates"]
            for name, value in state["averages"].items():
                self.averages[name].set_value(value)


def make_average(network: paddle.nn.Layer, decay: float) -> Ema | NoEma:
    """The average of the weights of a network; NoEma for `decay` 0."""
    return Ema(network, decay) if decay else NoEma()


def restore_weights(network: paddle.nn.Layer, state: dict[str, Any] | None, path: str) -> None:
    """Set the trained weights of a network that was loaded from averages (NAME_best, NAME_final), to resume.

    Args:
        state: `Ema.state` of the checkpoint, None of a run without averages.
        path: of the checkpoint.

    Raises:
        UserError: a file of version 0.2.0 or older, which holds the averages alone.
    """
    if not state:
        return
    parameters = dict(network.named_parameters())
    if "weights" in state:
        for name, value in state["weights"].items():
            parameters[name].set_value(_as(value, parameters[name]))
        logger.info("%s holds averages (TRAIN.ema_decay): resumed from the weights that they were made of", path)
        return
    has_trained_weights = re.search(r"_(epoch|step)\d+(\.pdparams)?$", path)  # numbered checkpoints
    if has_trained_weights or not state["updates"]:
        return
    averages = state["averages"].items()
    if all(bool((parameters[name] == _as(value, parameters[name])).all()) for name, value in averages):
        raise UserError(
            f"{path} holds averages (TRAIN.ema_decay) without the trained weights, as versions up to 0.2.0 wrote it",
            "resume from a numbered checkpoint (NAME_epochN), or set --pretrain to this one to start anew from it",
        )


def _as(value: np.ndarray, parameter: paddle.Tensor) -> paddle.Tensor:
    return paddle.to_tensor(value).astype(parameter.dtype)
