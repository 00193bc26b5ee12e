"""Checkpoints: NAME.pdparams (weights), NAME.pdopt (what resuming needs besides), NAME.json (what using them needs)."""

import os
import platform

import numpy as np
import paddle

from core.errors import UserError
from engine.files import write_atomically, write_json
from weights.load import load_into, read_weights


def save(folder, name, network, optimizer, progress, config, labels=None):
    """Write a checkpoint; each file is whole or not there.

    Args:
        folder, name: where; "STNET_epoch3" for example.
        network, optimizer: what is saved.
        progress: plain dict; the finished epochs ("epoch") at least.
        config: core.config.Config, saved with it.
        labels: class names, or None.
    """
    base = os.path.join(folder, name)
    write_atomically(f"{base}.pdparams", lambda path: paddle.save(network.state_dict(), path))
    state = {"optimizer": _structured_state(network, optimizer.state_dict()), "progress": progress}
    write_atomically(f"{base}.pdopt", lambda path: paddle.save(state, path))
    write_json(f"{base}.json", describe(config, progress, labels))


def describe(config, progress, labels):
    """What a user of the weights must know, as plain data."""
    return {
        "model": config.as_dict()["MODEL"],
        "labels": labels,
        "progress": progress,
        "config": config.as_dict(),
        "versions": {"paddle": paddle.__version__, "numpy": np.__version__, "python": platform.python_version()},
    }


def resume(path, network, optimizer):
    """Load a checkpoint and go on from it.

    Args:
        path: "DIR/NAME" or "DIR/NAME.pdparams", with NAME.pdopt beside it.

    Returns:
        the `progress` that was saved.
    """
    base = path[: -len(".pdparams")] if path.endswith(".pdparams") else path
    if not os.path.exists(f"{base}.pdparams"):
        raise UserError(f"--resume {path}: there is no {base}.pdparams")
    if not os.path.exists(f"{base}.pdopt"):
        raise UserError(f"--resume {path}: there is no {base}.pdopt beside it to continue from")
    load_into(network, read_weights(f"{base}.pdparams"), f"{base}.pdparams")
    try:
        state = paddle.load(f"{base}.pdopt")
        optimizer.set_state_dict(_named_state(network, state["optimizer"]))
        return state["progress"]
    except Exception as error:  # paddle.load raises many types on a damaged file
        raise UserError(f"--resume {path}: {base}.pdopt cannot be read: {error or type(error).__name__}") from None


def _structured_state(network, state):
    """Optimizer state keyed by structured names: Paddle's own count layers, and differ from process to process."""
    prefixes = sorted(((p.name, name) for name, p in network.named_parameters()), key=lambda pair: -len(pair[0]))
    renamed = {}
    for given, value in state.items():
        owner = next(((own, name) for own, name in prefixes if given.startswith(own + "_")), None)
        renamed[f"{owner[1]}/{given[len(owner[0]) + 1 :]}" if owner else given] = value
    return renamed


def _named_state(network, state):
    own = {name: p.name for name, p in network.named_parameters()}
    named = {}
    for given, value in state.items():
        name, slash, accumulator = given.partition("/")
        named[f"{own[name]}_{accumulator}" if slash else given] = value
    return named
