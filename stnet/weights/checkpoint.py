"""Checkpoints: NAME.pdparams (weights), NAME.pdopt (training state), NAME.json (metadata: configuration, labels).

The three are written into a hidden folder, .NAME.next, and moved into place from there, the weights first. After a
kill between two moves, `paths` finds the others in .NAME.next, and `finish` moves them. So the old checkpoint or the
new one is whole at any moment.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import platform
import re
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import paddle

from stnet.config import Config
from stnet.models.model import Model
from stnet.utils import atomic
from stnet.utils.atomic import TEMPORARY, os_errors_as_user_errors, sync_folder, write_atomically, write_json
from stnet.utils.errors import UserError
from stnet.utils.files import read_regular, sha256_of
from stnet.utils.parsing import parse_json
from stnet.utils.safe_pickle import load_plain
from stnet.utils.schema import SCHEMA, refuse_newer
from stnet.weights.formats import read_weights
from stnet.weights.rejection import rejection_path
from stnet.weights.state_dict import load_for_finetuning, load_weights

logger = logging.getLogger("stnet")
_JSON_BYTES = 1 << 26
SUFFIXES = ("pdparams", "pdopt", "json")
State = dict[str, Any]  # plain data: dicts, lists, numbers, NumPy arrays


def save(
    folder: str, name: str, network: paddle.nn.Layer, state: State, config: Config, labels: Sequence[str] | None = None
) -> None:
    """Write a checkpoint; at any moment the older one of this name, or the new one, is whole.

    Args:
        folder, name: of the files, "STNET_epoch3" for example.
        network: saved to NAME.pdparams.
        state: saved to NAME.pdopt; "progress" in it has at least the finished epochs ("epoch") and steps ("step").
        labels: class names, or None.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    base = os.path.join(folder, name)
    finish(base)
    with os_errors_as_user_errors(base):
        os.makedirs(folder, exist_ok=True)
        hidden = tempfile.mkdtemp(prefix=f".{name}{TEMPORARY}", dir=folder)
    try:
        part = os.path.join(hidden, name)
        write_atomically(f"{part}.pdparams", lambda path: paddle.save(network.state_dict(), path))
        write_atomically(f"{part}.pdopt", lambda path: _write_pickle(path, state))
        digests = {suffix: sha256_of(f"{part}.{suffix}") for suffix in ("pdparams", "pdopt")}
        write_json(f"{part}.json", describe(config, state["progress"], labels, digests))
        with os_errors_as_user_errors(base):
            os.rename(hidden, _next(base))
    finally:
        if os.path.isdir(hidden):
            atomic.remove(hidden)
    finish(base)


def finish(base: str) -> None:
    """Complete an interrupted save: move a checkpoint's files into place from its hidden folder."""
    folder, name = os.path.split(base)
    hidden = _next(base)
    if not os.path.isdir(hidden):
        return
    with os_errors_as_user_errors(base):
        for suffix in SUFFIXES:
            if os.path.exists(f"{hidden}/{name}.{suffix}"):
                os.replace(f"{hidden}/{name}.{suffix}", f"{base}.{suffix}")
                sync_folder(folder or ".")
        atomic.remove(hidden)


def finish_all(folder: str, name: str) -> None:
    """`finish` every checkpoint of a folder whose names begin with `name`."""
    for entry in os.listdir(folder):
        if re.fullmatch(rf"\.{re.escape(name)}_\w+\.next", entry):
            finish(os.path.join(folder, entry[1:].removesuffix(".next")))


def paths(base: str, digest: str = "") -> dict[str, str]:
    """Paths of a checkpoint's files, {suffix: path}, also after a kill while they were moved.

    Args:
        digest: SHA-256 of BASE.pdparams, if it is known.
    """
    found = {suffix: f"{base}.{suffix}" for suffix in SUFFIXES}
    hidden = {suffix: f"{_next(base)}/{os.path.basename(base)}.{suffix}" for suffix in SUFFIXES}
    with contextlib.suppress(OSError, ValueError):
        if _read_json(hidden["json"])["sha256"].get("pdparams") == (digest or sha256_of(found["pdparams"])):
            found.update({suffix: path for suffix, path in hidden.items() if os.path.exists(path)})
    return found


def _next(base: str) -> str:
    folder, name = os.path.split(base)
    return os.path.join(folder, f".{name}.next")


def remove(base: str) -> None:
    """Delete a checkpoint, its metadata first, so that it is never taken for whole."""
    for path in (_next(base), rejection_path(base), f"{base}.json", f"{base}.pdopt", f"{base}.pdparams"):
        if os.path.exists(path):
            atomic.remove(path)


def move(base: str, target: str) -> None:
    """Move a checkpoint to another folder, replacing one of that name, its metadata first."""
    finish(base)
    with os_errors_as_user_errors(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        for suffix in (".reject.json", ".json", ".pdopt", ".pdparams"):
            if os.path.exists(f"{base}{suffix}"):
                os.replace(f"{base}{suffix}", f"{target}{suffix}")


def prune_old(folder: str, name: str, keep: int) -> None:
    """Delete numbered checkpoints: steps saved again as an epoch, and all but the last `keep`; 0 keeps all epochs."""
    known, _ = numbered(folder, name)
    ends = {progress["step"] for progress, base in known if _is_epoch(base)}
    old = [base for progress, base in known if progress["step"] in ends and not _is_epoch(base)]
    others = [base for _, base in known if base not in old]
    old += others[:-keep] if keep else [base for base in others[:-1] if not _is_epoch(base)]
    for base in old:
        remove(base)


def _is_epoch(base: str) -> bool:
    return "_epoch" in os.path.basename(base)


def numbered(folder: str, name: str) -> tuple[list[tuple[State, str]], list[str]]:
    """The checkpoints NAME_epochN and NAME_stepN of a folder, as paths without suffix.

    Returns:
        ([(progress, path)] of those with valid metadata, the oldest first; [path] of the others).
    """
    pattern = re.compile(rf"({re.escape(name)}_(?:epoch|step)\d+)\.(?:{'|'.join(SUFFIXES)})")
    matches = map(pattern.fullmatch, os.listdir(folder) if os.path.isdir(folder) else [])
    known, unknown = [], []
    for base in sorted({os.path.join(folder, match[1]) for match in matches if match}):
        try:
            progress = _checked_progress(_read_json(paths(base)["json"]).get("progress"), base)
        except (OSError, ValueError):
            unknown.append(base)
        else:
            known.append((progress, base))
    return sorted(known, key=lambda pair: (pair[0]["step"], pair[0]["epoch"])), unknown


def _checked_progress(progress: Any, base: str = "") -> State:
    """The progress in a checkpoint's metadata. Raises ValueError: it is invalid, or contradicts the name."""
    if not isinstance(progress, dict):
        raise ValueError("it does not say how far the run had come")
    for key in ("epoch", "step", "batch"):
        value = progress.get(key, 0 if key == "batch" else None)
        if type(value) is not int or value < 0:
            raise ValueError(f"its {key} is {value!r:.20}")
    name = re.search(r"_(epoch|step)(\d+)$", base)
    expected = int(name[2]) + (name[1] == "epoch") if name else 0
    if name and progress[name[1]] != expected:
        raise ValueError(f"it is of {name[1]} {progress[name[1]]}, its name says {expected}")
    return progress


def fault(base: str) -> str:
    """The reason that a run cannot resume from a checkpoint, or "" if it is whole."""
    try:
        files = paths(base)
        missing = [suffix for suffix, path in files.items() if not os.path.exists(path)]
        if missing:
            return f"its .{missing[-1]} is missing"
        description = _read_json(files["json"])
        progress = _checked_progress(description.get("progress"), base)
        for suffix in ("pdparams", "pdopt"):
            if sha256_of(files[suffix]) != description["sha256"][suffix]:
                return f"its .{suffix} is not the one that its .json describes"
        if _read_state(files["pdopt"])["progress"] != progress:
            return "its .json and its .pdopt are of different steps"
    except UserError:
        return "its .pdopt cannot be read"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its .json is damaged ({error})"
    return ""


def _read_json(path: str) -> dict[str, Any]:
    """Read the metadata of a checkpoint. Raises OSError, or ValueError if it is invalid."""
    description = parse_json(read_regular(path, _JSON_BYTES))
    if not isinstance(description, dict) or not isinstance(description.get("sha256"), dict):
        raise ValueError("it is no description of a checkpoint")
    return description


def describe(config: Config, progress: State, labels: Sequence[str] | None, digests: dict[str, str]) -> dict[str, Any]:
    """Metadata of a checkpoint, as plain data."""
    return {
        "schema": SCHEMA,
        "model": config.as_dict()["MODEL"],
        "labels": labels,
        "progress": progress,
        "config": config.as_dict(),
        "versions": versions(),
        "sha256": digests,
    }


def versions() -> dict[str, str]:
    """Versions of Paddle, NumPy and Python."""
    return {"paddle": paddle.__version__, "numpy": np.__version__, "python": platform.python_version()}


def read_description(weights: str, digest: str = "") -> dict[str, Any] | None:
    """Read the metadata of a .pdparams file, None if there is none.

    Args:
        digest: SHA-256 of the file, if it is known.

    Raises:
        UserError: it is damaged, or belongs to other weights.
    """
    base, suffix = os.path.splitext(weights)
    try:
        path = paths(base, digest)["json"]
        if suffix != ".pdparams" or not os.path.exists(path):
            return None
        description = _read_json(path)
        refuse_newer(description, path)
        expected, model = description["sha256"]["pdparams"], description["model"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{base}.json is damaged ({error})", hint="delete it to use the weights without it") from None
    if not os.path.exists(weights) or not isinstance(model, dict):
        return None
    if (digest or sha256_of(weights)) != expected:
        raise UserError(
            f"weights {weights} are not those that {base}.json describes: damaged, or replaced",
            hint="delete the .json if you replaced them yourself",
        )
    return description


def load(path: str, model: Model) -> State | None:
    """Load a checkpoint, or bare weights to fine-tune, into a model; the log says which.

    Args:
        path: "DIR/NAME" or "DIR/NAME.pdparams" of this project, or a file or folder of weights in any format.

    Returns:
        the saved `state`, or None for bare weights.

    Raises:
        UserError: damaged, or for another model; the network is then unchanged.
    """
    base = path.removesuffix(".pdparams")
    file = f"{base}.pdparams" if os.path.exists(f"{base}.pdparams") else path
    weights = read_weights(file, model.original_names(), read_description)
    state_path = paths(base, weights.digest)["pdopt"]
    if not os.path.exists(state_path):
        load_for_finetuning(model.network, weights, model.head)
        logger.info("%s holds weights alone: fine-tuning from them, from epoch 0", file)
        return None
    state = _read_state(state_path)
    description = weights.description
    if description is not None and description.get("progress") != state["progress"]:
        raise UserError(f"{base}.pdopt and {base}.pdparams are of different steps", hint="use another checkpoint")
    load_weights(model.network, weights)
    with contextlib.suppress(KeyError, TypeError):  # an older version's metadata may lack it
        state["batch_size"] = (description or {})["config"]["TRAIN"]["batch_size"]
    progress = state["progress"]
    logger.info("resumed from %s: %d epochs and %d steps done", file, progress["epoch"], progress["step"])
    return state


def exists(path: str) -> bool:
    """Check for weights at "DIR/NAME" or "DIR/NAME.pdparams", or any other file or folder at `path`."""
    return os.path.exists(path) or os.path.exists(f"{path}.pdparams")


def has_state(path: str) -> bool:
    """Check for a training state, from which a run can resume, at "DIR/NAME" or "DIR/NAME.pdparams"."""
    return os.path.exists(paths(path.removesuffix(".pdparams"))["pdopt"])


def _write_pickle(path: str, value: object) -> None:
    with open(path, "wb") as file:
        pickle.dump(value, file, protocol=4)


def _read_state(path: str) -> State:
    try:
        with open(path, "rb") as file:
            state = load_plain(file.read())
        _checked_progress(state["progress"])
        if not isinstance(state["optimizer"], dict):
            raise ValueError("it is not the state of a training run")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read: {error}", hint="delete it to go on from the weights alone") from None
    return state
