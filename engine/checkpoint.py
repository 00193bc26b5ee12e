"""Checkpoints: NAME.pdparams (weights), NAME.pdopt (what resuming needs besides), NAME.json (what using them needs)."""

import contextlib
import hashlib
import json
import logging
import os
import pickle
import platform
import re

import numpy as np
import paddle

from core.errors import UserError
from core.pickles import load_plain
from core.schema import SCHEMA, refuse_newer
from engine.files import write_atomically, write_json
from weights.load import load_for_finetuning, load_weights

logger = logging.getLogger("stnet")


def save(folder, name, network, state, config, labels=None):
    """Write a checkpoint; each file is whole or not there, and NAME.json, written last, tells whether all are.

    Args:
        folder, name: where; "STNET_epoch3" for example.
        network: its weights go to NAME.pdparams.
        state: plain data (dicts, lists, numbers, NumPy arrays) for NAME.pdopt; "progress" in it has the finished
            epochs ("epoch") and steps ("step") at least.
        config: core.config.Config, saved with it.
        labels: class names, or None.
    """
    base = os.path.join(folder, name)
    write_atomically(f"{base}.pdparams", lambda path: paddle.save(network.state_dict(), path))

    def write_state(path):
        with open(path, "wb") as file:
            pickle.dump(state, file, protocol=4)

    write_atomically(f"{base}.pdopt", write_state)
    digests = {suffix: _sha256(f"{base}.{suffix}") for suffix in ("pdparams", "pdopt")}
    write_json(f"{base}.json", describe(config, state["progress"], labels, digests))


def remove(base):
    """Delete a checkpoint, its description first, so that it is never taken for whole."""
    for suffix in ("json", "pdopt", "pdparams"):
        if os.path.exists(f"{base}.{suffix}"):
            os.remove(f"{base}.{suffix}")


def numbered(folder, name):
    """The checkpoints NAME_epochN and NAME_stepN of a folder: paths without suffix, oldest first."""
    found = []
    for entry in os.listdir(folder) if os.path.isdir(folder) else []:
        if re.fullmatch(rf"{re.escape(name)}_(epoch|step)\d+\.json", entry):
            base = os.path.join(folder, entry[: -len(".json")])
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError), open(f"{base}.json", "rb") as file:
                found.append((json.load(file)["progress"]["step"], "_epoch" in entry, base))
    return [base for _, _, base in sorted(found)]


def newest(folder, name):
    """Path without suffix of the newest checkpoint of a folder that is whole, or None."""
    for base in reversed(numbered(folder, name)):
        if _is_whole(base):
            return base
        logger.warning("%s is not whole; looking for an older checkpoint", base)
    return None


def _is_whole(base):
    try:
        with open(f"{base}.json", encoding="utf-8") as file:
            digests = json.load(file)["sha256"]
        return all(_sha256(f"{base}.{suffix}") == digests[suffix] for suffix in ("pdparams", "pdopt"))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def describe(config, progress, labels, digests):
    """What a user of the weights must know, as plain data."""
    return {
        "schema": SCHEMA,
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
        refuse_newer(about, f"{base}.json")
        digest, model = about["sha256"]["pdparams"], about["model"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{base}.json is damaged ({error}); delete it to use the weights without it") from None
    if not os.path.exists(weights) or not isinstance(model, dict):
        return None
    if _sha256(weights) != digest:
        raise UserError(
            f"weights {weights} are not those that {base}.json describes: damaged, or replaced; "
            "delete the .json if you replaced them yourself"
        )
    return about


def load(path, model):
    """Load a checkpoint, or bare weights to fine-tune; the log says which.

    Args:
        path: "DIR/NAME" or "DIR/NAME.pdparams" of this project, or a file or folder of weights in any format.
        model: models.model.Model; its network gets the weights.

    Returns:
        the `state` that was saved, or None when there is nothing but weights.

    Raises:
        UserError: damaged, or for another model; nothing is changed then.
    """
    base = path[: -len(".pdparams")] if path.endswith(".pdparams") else path
    weights = f"{base}.pdparams" if os.path.exists(f"{base}.pdparams") else path
    about = read_description(weights)
    if not os.path.exists(f"{base}.pdopt"):
        load_for_finetuning(model.network, weights, model.original_names())
        logger.info("%s holds weights alone: fine-tuning from them, from epoch 0", weights)
        return None
    state = _read_state(f"{base}.pdopt")
    if about is not None and about["progress"] != state["progress"]:
        raise UserError(f"{base}.pdopt and {base}.pdparams are of different steps; use another checkpoint")
    load_weights(model.network, weights, model.original_names())
    progress = state["progress"]
    logger.info("resumed from %s: %d epochs and %d steps done", weights, progress["epoch"], progress["step"])
    return state


def _read_state(path):
    try:
        with open(path, "rb") as file:
            state = load_plain(file.read())
        if not {"epoch", "step"} <= set(state["progress"]) or not isinstance(state["optimizer"], dict):
            raise ValueError("it is not the state of a training run")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read: {error}; delete it to go on from the weights alone") from None
    return state


def optimizer_state(network, optimizer):
    """An optimizer's state as plain data, keyed by structured names: Paddle's own differ from process to process."""
    owners = sorted(((p.name, name) for name, p in network.named_parameters()), key=lambda pair: -len(pair[0]))

    def renamed(state):
        found = {}
        for given, value in state.items():
            owner = next(((own, name) for own, name in owners if given == own or given.startswith(own + "_")), None)
            key = f"{owner[1]}/{given[len(owner[0]) :].lstrip('_')}" if owner else given
            found[key] = renamed(value) if isinstance(value, dict) else plain(value)
        return found

    return renamed(optimizer.state_dict())


def set_optimizer_state(network, optimizer, state):
    """The reverse of optimizer_state. Raises UserError when the state is of another model."""
    own = {name: p.name for name, p in network.named_parameters()}

    def named(state):
        found = {}
        for given, value in state.items():
            name, slash, accumulator = given.partition("/")
            if slash and name not in own:
                raise UserError(f"the checkpoint holds the optimizer's state of {name}, which the model does not have")
            key = "_".join(filter(None, (own[name], accumulator))) if slash else given
            found[key] = named(value) if isinstance(value, dict) else value
        return found

    optimizer.set_state_dict(named(state))


def plain(value):
    """A tensor as an array, a NumPy number as a Python one."""
    if isinstance(value, paddle.Tensor):
        return value.numpy()
    return value.item() if isinstance(value, np.generic) else value


def _sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
