"""Resuming: checkpoints in a run's folder, the one to resume from, and the next batch of its epoch."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Sequence
from typing import Any

from stnet.reader.loader import EpochOrder, Loader
from stnet.utils import atomic
from stnet.utils.errors import UserError
from stnet.weights import checkpoint

logger = logging.getLogger("stnet")
_MOST = 6  # names in a message
SUPERSEDED = "superseded"  # folder of checkpoints later than the one that a run resumes from
_SUPERSEDED = re.compile(rf"{SUPERSEDED}(-\d+)?")


def choose(resume: str, overwrite: bool, folder: str, name: str) -> str:
    """Choose the checkpoint or weights that a run starts from.

    Args:
        resume: checkpoint or weights, "auto" for the newest checkpoint of the folder, or "".
        overwrite: remove another run's checkpoints and logs from the folder.
        folder, name: of the checkpoints, "checkpoints" and "STNET" for example.

    Returns:
        path of a checkpoint or of weights, or "" to start anew.

    Raises:
        UserError: the folder holds an earlier run that this one does not resume, or no whole checkpoint.
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
        go_on = "set --resume to one of these" if resume == "auto" else "set --resume=auto"
        or_else = "--overwrite to remove its checkpoints and logs, or --save_dir to another folder"
        raise UserError(f"{folder} holds an earlier run: {_listed(held)}", f"{go_on} to go on with it, {or_else}")
    return path


def _not_both(run: str) -> UserError:
    return UserError(
        f"{run} cannot be gone on with and removed",
        hint="--resume goes on with a run, --overwrite removes it: set one of them",
    )


def held_by(folder: str, name: str) -> list[str]:
    """Names of a run's checkpoints in a folder, without suffix, and of its log."""
    held = {match[1] for match in map(_checkpoint_file(name).fullmatch, _entries(folder)) if match}
    log = os.path.join(folder, "train_log.jsonl")
    return sorted(held) + (["train_log.jsonl"] if os.path.exists(log) and os.path.getsize(log) else [])


def remove_run(folder: str, name: str) -> None:
    """Delete a run's checkpoints, logs and page, and nothing else in its folder."""
    own = re.compile(rf"{_checkpoint_file(name).pattern}|train_log\.(?:jsonl|png)|training\.html|vdlrecords\..*\.log")
    subfolders = [*_superseded(folder), "visualdl"]
    for path in (folder, *(os.path.join(folder, entry) for entry in subfolders)):
        with atomic.os_errors_as_user_errors(path):
            for entry in filter(own.fullmatch, _entries(path)):
                atomic.remove(os.path.join(path, entry))


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
    """Path without suffix of the newest whole numbered checkpoint, "" if there are none; the log names it.

    Warns of newer ones that are not whole.

    Raises:
        UserError: there are checkpoints, but none is whole.
    """
    known, unknown = checkpoint.numbered(folder, name)
    whole, epochs = "", -1  # the newest whole one, and its finished epochs
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
        raise UserError(
            f"no checkpoint in {folder} is whole ({'; '.join(faults[:3])})",
            hint="set --resume to another, --overwrite without --resume to start anew, or --save_dir to another folder",
        )
    logger.info("newest complete checkpoint in %s: %s", folder, whole or "none yet")
    return whole


def clear(folder: str, name: str, step: int, overwrite: bool) -> None:
    """Prepare a folder for a run that resumes from `step`.

    `overwrite` deletes another run's checkpoints and logs. Otherwise numbered checkpoints of later steps, which would
    count as the newest, move to a SUPERSEDED folder.
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
    """Digest of the list, and batch size: with the seed, they give the order of clips. Plain data for a checkpoint."""
    listed = hashlib.sha256()
    for clip in loader.dataset.clips:
        listed.update(f"{clip.name}\t{clip.label}\n".encode("utf-8", "surrogateescape"))
    return {"list": listed.hexdigest(), "clips": len(loader.dataset.clips), "batch_size": loader.order.batch_size}


def next_batch(
    progress: dict[str, Any], data: dict[str, Any], order: EpochOrder, batch_size_then: object = None
) -> int:
    """The batch from which an interrupted epoch resumes, also with another batch size than before.

    Args:
        progress: of the checkpoint.
        data, order: data_record and order of this run.
        batch_size_then: in the checkpoint's config, for checkpoints of version 0.1.0, which hold no record.

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
            hint="set TRAIN.filelist to the list of that run, or resume from the end of an epoch (NAME_epochN)",
        )
    if then["clips_done"] not in starts:
        raise UserError(
            f"the checkpoint lies {then['clips_done']} clips into an epoch of batches of {then['batch_size']}, where "
            f"no batch of {data['batch_size']} begins",
            hint="set --batch_size to that of the run, or resume from the end of an epoch (NAME_epochN)",
        )
    if then["batch_size"] != data["batch_size"]:
        logger.info(
            "batch_size was %d and is %d: going on after the same %d clips of the epoch",
            then["batch_size"], data["batch_size"], then["clips_done"],
        )  # fmt: skip
    return starts.index(then["clips_done"])
