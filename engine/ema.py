"""Exponential moving average of weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Union

import paddle


class NoEma:
    """Stands where a run keeps no averages: the interface of Ema, doing nothing."""

    def start(self) -> None:
        """Before the first step."""

    def update(self) -> None:
        """After a training step."""

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The network stays as it is."""
        yield

    def state(self) -> None:
        """Nothing for a checkpoint."""

    def load(self, state: dict[str, Any] | None) -> None:
        """A run may give up the averages of the one that it goes on with."""


class Ema:
    """Averages of the trained parameters.

    Args:
        decay: of the average; the usual correction makes early averages follow faster.
    """

    def __init__(self, network: paddle.nn.Layer, decay: float) -> None:
        self.network, self.decay, self.updates = network, decay, 0
        self.start()

    def start(self) -> None:
        """Before the first step: the averages are the weights as they are now, unless `load` has set them."""
        if not self.updates:
            self.averages = {name: p.detach().astype("float32").clone() for name, p in self._trained()}

    def _trained(self) -> list[tuple[str, paddle.Tensor]]:
        return [(name, p) for name, p in self.network.named_parameters() if not p.stop_gradient]

    @paddle.no_grad()
    def update(self) -> None:
        """After a training step."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, p in self._trained():
            average = self.averages[name]
            average.set_value(average * decay + p.astype("float32") * (1 - decay))

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The network holds the averages while this context lasts."""
        before = {name: p.detach().clone() for name, p in self._trained()}
        for name, p in self._trained():
            p.set_value(self.averages[name].astype(p.dtype))
        try:
            yield
        finally:
            for name, p in self._trained():
                p.set_value(before[name])

    def state(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {"updates": self.updates, "averages": {name: v.numpy() for name, v in self.averages.items()}}

    def load(self, state: dict[str, Any] | None) -> None:
        """Go on from `state`; None comes from a run without averages."""
        if state:
            self.updates = state["updates"]
            for name, value in state["averages"].items():
                self.averages[name].set_value(value)


Average = Union[Ema, NoEma]


def make_average(network: paddle.nn.Layer, decay: float) -> Average:
    """Of the weights of a network; one of `decay` 0 is none."""
    return Ema(network, decay) if decay else NoEma()
