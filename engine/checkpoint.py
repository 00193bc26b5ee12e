"""Checkpoints: NAME.pdparams (weights), NAME.pdopt (what resuming needs besides), NAME.json (what using them needs)."""

import hashlib
import json
import logging
import os
import pickle
import platform

import numpy as np
import paddle

from core.errors import UserError
from core.pickles import load_plain
from engine.files import write_atomically, write_json
from weights.load import load_for_finetuning, load_weights

logger = logging.getLogger("stnet")


def save(folder, name, network, optimizer, progress, config, labels=None):
    """Write a checkpoint; each file is whole or not there.

    Args:
        folder, name: where; "STNET_epoch3" for example.
        network, optimizer: what is saved.
        progress: plain dict; the finished epochs ("epoch") and steps ("step") at least.
        config: core.config.Config, saved with it.
        labels: class names, or None.
    """
    base = os.path.join(folder, name)
    write_atomically(f"{base}.pdparams", lambda path: paddle.save(network.state_dict(), path))
    state = {"optimizer": _structured_state(network, optimizer.state_dict()), "progress": progress}

    def write_state(path):
        with open(path, "wb") as file:
            pickle.dump(state, file, protocol=4)

    write_atomically(f"{base}.pdopt", write_state)
    digests = {suffix: _sha256(f"{base}.{suffix}") for suffix in ("pdparams", "pdopt")}
    write_json(f"{base}.json", describe(config, progress, labels, digests))


def describe(config, progress, labels, digests):
    """What a user of the weights must know, as plain data."""
    return {
        "model": config.as_dict()["MODEL"],
        "labels": labels,
        "progress": progress,
        "config": config.as_dict(),
        "versions": {"paddle": paddle.__version__, "numpy": np.__version__, "python": platform.python_version()},
        "sha256": digests,
    }


def read_description(weights):
    """The description beside a .pdparams file, or None.

    Raises:
        UserError: it is damaged, or belongs to other weights.
    """
    base, suffix = os.path.splitext(weights)
    if suffix != ".pdparams" or not os.path.exists(f"{base}.json"):
        return None
    try:
        with open(f"{base}.json", encoding="utf-8") as file:
            about = json.load(file)
        digest, model = about["sha256"]["pdparams"], about["model"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{base}.json is damaged ({error}); delete it to use the weights without it") from None
    if not os.path.exists(weights) or not isinstance(model, dict):
        return None
    if _sha256(weights) != digest:
        raise UserError(
            f"weights {weights} are not those that {base}.json describes: damaged, or replaced; "
            "delete the .json if you replaced them yourself"
        )
    return about


def resume(path, model, optimizer):
    """Go on from a checkpoint, or start a fine-tune from bare weights; the log says which.

    Args:
        path: "DIR/NAME" or "DIR/NAME.pdparams" of this project, or a file or folder of weights in any format.
        model: models.model.Model.
        optimizer: its optimizer.

    Returns:
        the `progress` that was saved, or None when there is nothing but weights.

    Raises:
        UserError: damaged, or for another model; nothing is changed then.
    """
    base = path[: -len(".pdparams")] if path.endswith(".pdparams") else path
    weights = f"{base}.pdparams" if os.path.exists(f"{base}.pdparams") else path
    read_description(weights)
    if not os.path.exists(f"{base}.pdopt"):
        load_for_finetuning(model.network, weights, model.original_names())
        logger.info("%s holds weights alone: fine-tuning from them, from epoch 0", weights)
        return None
    state = _read_state(f"{base}.pdopt")
    load_weights(model.network, weights, model.original_names())
    optimizer.set_state_dict(_named_state(model.network, state["optimizer"], f"{base}.pdopt"))
    progress = state["progress"]
    logger.info("resumed from %s: %d epochs and %d steps done", weights, progress["epoch"], progress["step"])
    return progress


def _read_state(path):
    try:
        with open(path, "rb") as file:
            state = load_plain(file.read())
        if not {"epoch", "step"} <= set(state["progress"]) or not isinstance(state["optimizer"], dict):
            raise ValueError("it is not the state of a training run")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read: {error}; delete it to go on from the weights alone") from None
    return state


def _structured_state(network, state):
    """Optimizer state as plain data, keyed by structured names: Paddle's own names differ from process to process."""
    owners = sorted(((p.name, name) for name, p in network.named_parameters()), key=lambda pair: -len(pair[0]))
    plain = {}
    for given, value in state.items():
        owner = next(((own, name) for own, name in owners if given.startswith(own + "_")), None)
        value = value.numpy() if isinstance(value, paddle.Tensor) else value  # noqa: PLW2901
        plain[f"{owner[1]}/{given[len(owner[0]) + 1 :]}" if owner else given] = value
    return plain


def _named_state(network, state, path):
    own = {name: p.name for name, p in network.named_parameters()}
    named = {}
    for given, value in state.items():
        name, slash, accumulator = given.partition("/")
        if slash and name not in own:
            raise UserError(f"{path} holds the state of {name}, which the model does not have")
        named[f"{own[name]}_{accumulator}" if slash else given] = value
    return named


def _sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
