"""Exponential moving average of weights."""

import contextlib

import paddle


class Ema:
    """Averages of the trained parameters.

    Args:
        network: paddle.nn.Layer.
        decay: of the average; the usual correction makes early averages follow faster.
    """

    def __init__(self, network, decay):
        self.network, self.decay, self.updates = network, decay, 0
        self.averages = {name: p.detach().astype("float32").clone() for name, p in self._trained()}

    def _trained(self):
        return [(name, p) for name, p in self.network.named_parameters() if not p.stop_gradient]

    @paddle.no_grad()
    def update(self):
        """After a training step."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, p in self._trained():
            average = self.averages[name]
            average.set_value(average * decay + p.astype("float32") * (1 - decay))

    @contextlib.contextmanager
    def applied(self):
        """The network holds the averages while this context lasts."""
        before = {name: p.detach().clone() for name, p in self._trained()}
        for name, p in self._trained():
            p.set_value(self.averages[name].astype(p.dtype))
        try:
            yield
        finally:
            for name, p in self._trained():
                p.set_value(before[name])

    def state(self):
        """Plain data for a checkpoint."""
        return {"updates": self.updates, "averages": {name: v.numpy() for name, v in self.averages.items()}}

    def load(self, state):
        """Go on from `state`."""
        self.updates = state["updates"]
        for name, value in state["averages"].items():
            self.averages[name].set_value(value)
