"""Where a run starts: what its folder holds, which checkpoint it goes on from, and after which clip."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Sequence
from typing import Any

from core import atomic
from core.errors import UserError
from engine import checkpoint
from reader.loader import EpochOrder, Loader

logger = logging.getLogger("stnet")
_MOST = 6  # names in a message
SUPERSEDED = "superseded"  # folder for checkpoints that lie beyond the one that a run goes on from
_SUPERSEDED = re.compile(rf"{SUPERSEDED}(-\d+)?")


def choose(resume: str, overwrite: bool, folder: str, name: str) -> str:
    """What a run that writes into a folder goes on from.

    Args:
        resume: checkpoint or weights, "auto" for the newest checkpoint of the folder, or "".
        overwrite: whether another run's checkpoints and logs in the folder may go.
        folder, name: of the checkpoints, "checkpoints" and "STNET" for example.

    Returns:
        path of a checkpoint or of weights, or "" to start anew.

    Raises:
        UserError: the folder holds an earlier run that this one does not go on with, or nothing that is whole.
    """
    if resume == "auto" and overwrite:
        raise _not_both(f"the run in {folder}")
    path = newest(folder, name) if resume == "auto" else resume
    if path and not checkpoint.exists(path):
        raise UserError(f"{path}: no such file; {folder} holds {_listed(held_by(folder, name)) or 'no run'}")
    inside = os.path.realpath(os.path.dirname(path) or ".") == os.path.realpath(folder)
    if path and inside and checkpoint.has_state(path):
        if overwrite:
            raise _not_both(f"the run of {path}")
        return path
    held = held_by(folder, name)
    only_logs = all(entry.startswith("train_log") for entry in held)  # of a run that ended before its first checkpoint
    if held and not overwrite and not (resume == "auto" and only_logs):
        topic = "used folder without a newest" if resume == "auto" else "used folder"
        raise UserError(f"{folder} holds an earlier run: {_listed(held)}", topic)
    return path


def _not_both(run: str) -> UserError:
    return UserError(f"{run} cannot be gone on with and removed", topic="resume and overwrite")


def held_by(folder: str, name: str) -> list[str]:
    """Names of the checkpoints, without suffix, and of the log that a run left in a folder."""
    held = {match[1] for match in map(_checkpoint_file(name).fullmatch, _entries(folder)) if match}
    log = os.path.join(folder, "train_log.jsonl")
    return sorted(held) + (["train_log.jsonl"] if os.path.exists(log) and os.path.getsize(log) else [])


def remove_run(folder: str, name: str) -> None:
    """Delete a run's checkpoints, logs and page, and nothing else that lies in its folder."""
    own = re.compile(rf"{_checkpoint_file(name).pattern}|train_log\.(?:jsonl|png)|training\.html|vdlrecords\..*\.log")
    folders = [*_superseded(folder), "visualdl"]
    for place in (folder, *(os.path.join(folder, entry) for entry in folders)):
        with atomic.writing(place):
            for entry in filter(own.fullmatch, _entries(place)):
                atomic.remove(os.path.join(place, entry))


def _checkpoint_file(name: str) -> re.Pattern[str]:
    suffixes = "|".join(checkpoint.SUFFIXES)
    return re.compile(rf"\.?({re.escape(name)}_(?:epoch\d+|step\d+|best|final))\.(?:{suffixes}|next)")


def _superseded(folder: str) -> list[str]:
    """Names of the folders that hold checkpoints which were moved aside."""
    return [entry for entry in _entries(folder) if _SUPERSEDED.fullmatch(entry)]


def _entries(folder: str) -> list[str]:
    return os.listdir(folder) if os.path.isdir(folder) else []


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST]) + (f" and {len(names) - _MOST} more" if len(names) > _MOST else "")


def newest(folder: str, name: str) -> str:
    """Path without suffix of the newest numbered checkpoint that is whole, "" if there are none at all.

    The log says which it is, and why none of those that may be newer.

    Raises:
        UserError: there are checkpoints, but none is whole.
    """
    known, unknown = checkpoint.numbered(folder, name)
    whole, epochs = "", -1  # the newest that is whole, and the epochs that it has finished
    faults: list[str] = []
    for progress, base in [*((None, base) for base in unknown), *reversed(known)]:
        if whole and progress and progress["epoch"] <= epochs:
            continue
        fault = checkpoint.fault(base)
        if fault:
            faults.append(f"{base}: {fault}")
            logger.warning("passed over: %s", faults[-1])
        elif not whole and progress:
            whole, epochs = base, progress["epoch"]
    if faults and not whole:
        raise UserError(f"no checkpoint in {folder} is whole ({'; '.join(faults[:3])})", topic="no whole checkpoint")
    logger.info("newest complete checkpoint in %s: %s", folder, whole or "none yet")
    return whole


def clear(folder: str, name: str, step: int, overwrite: bool) -> None:
    """Make a folder ready for a run that goes on from `step`, or, to overwrite another, from 0.

    To overwrite, that run's checkpoints and logs are deleted, nothing else. Or else the numbered checkpoints of later
    steps, which would count as the newest, move to a folder of their own.
    """
    if overwrite:
        held = held_by(folder, name)
        remove_run(folder, name)
        logger.info("removed from %s: %s", folder, _listed(held) or "nothing")
        return
    later = [base for progress, base in checkpoint.numbered(folder, name)[0] if progress["step"] > step]
    numbers = [int(name.partition("-")[2] or 1) for name in _superseded(folder)]
    aside = os.path.join(folder, f"{SUPERSEDED}-{max(numbers) + 1}" if numbers else SUPERSEDED)
    for base in later:
        logger.warning("%s is later than where this run goes on: moved to %s", base, aside)
        checkpoint.move(base, os.path.join(aside, os.path.basename(base)))


def data_record(loader: Loader) -> dict[str, Any]:
    """What the order of clips in an epoch depends on, but for its seed, as plain data for a checkpoint."""
    listed = hashlib.sha256()
    for clip in loader.dataset.clips:
        listed.update(f"{clip.path}\t{clip.label}\n".encode("utf-8", "surrogateescape"))
    return {"list": listed.hexdigest(), "clips": len(loader.dataset.clips), "batch_size": loader.order.batch_size}


def next_batch(
    progress: dict[str, Any], data: dict[str, Any], order: EpochOrder, batch_size_then: object = None
) -> int:
    """The batch with which an epoch goes on, however it was cut into batches before.

    Args:
        progress: of the checkpoint.
        data: data_record of this run.
        order: of this run.
        batch_size_then: that of the checkpoint's config, for checkpoints of version 0.1.0, which hold no record.

    Raises:
        UserError: the list has changed, or no batch of this run begins after the last clip that was read.
    """
    batch, starts = progress.get("batch", 0), [*order.starts(), data["clips"]]
    if not batch:
        return 0
    then = progress.get("data")
    if then is None:
        logger.warning("the checkpoint does not say of which list it is: the epoch goes on as if it were this one")
        size = batch_size_then if type(batch_size_then) is int and batch_size_then > 0 else data["batch_size"]
        same = size == data["batch_size"] and batch < len(starts)
        done = starts[batch] if same else min(batch * size, data["clips"])
        then = {**data, "batch_size": size, "clips_done": done}
    if then["clips_done"] == then["clips"]:
        return len(order)
    if then["list"] != data["list"]:
        raise UserError(
            f"the checkpoint lies within an epoch of another list ({then['clips']} clips then, {data['clips']} now)",
            topic="other list",
        )
    if then["clips_done"] not in starts:
        raise UserError(
            f"the checkpoint lies {then['clips_done']} clips into an epoch of batches of {then['batch_size']}, where "
            f"no batch of {data['batch_size']} begins",
            topic="other batch size",
        )
    if then["batch_size"] != data["batch_size"]:
        logger.info(
            "batch_size was %d and is %d: going on after the same %d clips of the epoch",
            then["batch_size"], data["batch_size"], then["clips_done"],
        )  # fmt: skip
    return starts.index(then["clips_done"])
