"""Where a run starts: what its folder holds, which checkpoint it goes on from, and after which clip."""

import hashlib
import logging
import os
import re

from core import atomic
from core.errors import UserError
from engine import checkpoint

logger = logging.getLogger("stnet")
SUPERSEDED = "superseded"  # folder for checkpoints that lie beyond the one that a run goes on from


def choose(resume, overwrite, folder, name, writes=True):
    """What a run that writes into a folder goes on from.

    Args:
        resume: checkpoint or weights, "auto" for the newest checkpoint of the folder, or "".
        overwrite: whether another run's checkpoints and logs in the folder may go.
        folder, name: of the checkpoints, "checkpoints" and "STNET" for example.
        writes: whether the run will write there; a dry run may look at another run's folder.

    Returns:
        path of a checkpoint or of weights, or "" to start anew.

    Raises:
        UserError: the folder holds an earlier run that this one does not go on with, or nothing that is whole.
    """
    if resume == "auto" and overwrite:
        raise UserError("--resume=auto goes on with the run in save_dir, --overwrite removes it: set one of them")
    path = newest(folder, name) or "" if resume == "auto" else resume
    if path and not checkpoint.exists(path):
        raise UserError(f"--resume={path}: no such file; {folder} holds {_listed(held_by(folder, name)) or 'no run'}")
    inside = os.path.realpath(os.path.dirname(path) or ".") == os.path.realpath(folder)
    if path and inside and checkpoint.has_state(path):
        if overwrite:
            raise UserError(f"--resume={path} goes on with the run that --overwrite removes: set one of them")
        return path
    held = held_by(folder, name)
    only_logs = all(entry.startswith("train_log") for entry in held)  # of a run that ended before its first checkpoint
    if writes and held and not overwrite and not (resume == "auto" and only_logs):
        go_on = "--resume to one of these" if resume == "auto" else "--resume=auto"
        raise UserError(
            f"{folder} holds an earlier run: {_listed(held)}; set {go_on} to go on with it, --overwrite to remove its "
            "checkpoints and logs, or --save_dir to another folder"
        )
    return path


def held_by(folder, name):
    """Names of the checkpoints, without suffix, and of the log that a run left in a folder."""
    held = {match[1] for match in map(_checkpoint_file(name).fullmatch, _entries(folder)) if match}
    log = os.path.join(folder, "train_log.jsonl")
    return sorted(held) + (["train_log.jsonl"] if os.path.exists(log) and os.path.getsize(log) else [])


def remove_run(folder, name):
    """Delete a run's checkpoints and logs, and nothing else that lies in its folder."""
    own = re.compile(rf"{_checkpoint_file(name).pattern}|train_log\.(?:jsonl|png)|vdlrecords\..*\.log")
    for place in (folder, os.path.join(folder, SUPERSEDED), os.path.join(folder, "visualdl")):
        with atomic.writing(place):
            for entry in filter(own.fullmatch, _entries(place)):
                atomic.remove(os.path.join(place, entry))


def _checkpoint_file(name):
    suffixes = "|".join(checkpoint.SUFFIXES)
    return re.compile(rf"\.?({re.escape(name)}_(?:epoch\d+|step\d+|best|final))\.(?:{suffixes}|next)")


def _entries(folder):
    return os.listdir(folder) if os.path.isdir(folder) else []


def _listed(names, most=6):
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def newest(folder, name):
    """Path without suffix of the newest numbered checkpoint that is whole, None if there are none at all.

    The log says which it is, and why none of those that may be newer.

    Raises:
        UserError: there are checkpoints, but none is whole.
    """
    known, unknown = checkpoint.numbered(folder, name)
    taken, faults = None, []
    for progress, base in [*((None, base) for base in unknown), *reversed(known)]:
        if taken and progress["epoch"] <= taken[0]["epoch"]:
            continue
        fault = checkpoint.fault(base)
        if fault:
            faults.append(f"{base}: {fault}")
            logger.warning("--resume=auto passes over %s", faults[-1])
        else:
            taken = taken or (progress, base)
    if faults and not taken:
        raise UserError(
            f"--resume=auto: no checkpoint in {folder} is whole ({'; '.join(faults[:3])}); set --resume to another, "
            "--overwrite without --resume to start anew, or --save_dir to another folder"
        )
    if taken:
        logger.info("--resume=auto takes %s, the newest checkpoint that is whole", taken[1])
        return taken[1]
    logger.info("--resume=auto: no checkpoint in %s yet", folder)
    return None


def clear(folder, name, step, overwrite):
    """Make a folder ready for a run that goes on from `step`, or, to overwrite another, from 0.

    To overwrite, that run's checkpoints and logs are deleted, nothing else. Or else the numbered checkpoints of later
    steps, which would count as the newest for `keep` and for --resume=auto, move to a folder of their own.
    """
    if overwrite:
        held = held_by(folder, name)
        remove_run(folder, name)
        logger.info("--overwrite: removed from %s: %s", folder, _listed(held) or "nothing")
        return
    for progress, base in checkpoint.numbered(folder, name)[0]:
        if progress["step"] > step:
            aside = os.path.join(folder, SUPERSEDED, os.path.basename(base))
            logger.warning("%s is later than where this run goes on: moved to %s", base, os.path.dirname(aside))
            checkpoint.move(base, aside)


def data_record(loader):
    """What the order of clips in an epoch depends on, but for its seed, as plain data for a checkpoint."""
    listed = hashlib.sha256()
    for clip in loader.dataset.clips:
        listed.update(f"{clip.path}\t{clip.label}\n".encode("utf-8", "surrogateescape"))
    return {"list": listed.hexdigest(), "clips": len(loader.dataset.clips), "batch_size": loader.order.batch_size}


def next_batch(progress, data, order, batch_size_then=None):
    """The batch with which an epoch goes on, however it was cut into batches before.

    Args:
        progress: of the checkpoint.
        data: data_record of this run.
        order: reader.loader.EpochOrder of this run.
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
    advice = "or resume from the end of an epoch (NAME_epochN)"
    if then["list"] != data["list"]:
        raise UserError(
            f"the checkpoint lies within an epoch of another list ({then['clips']} clips then, {data['clips']} now): "
            f"set TRAIN.filelist to the list of that run, {advice}"
        )
    if then["clips_done"] not in starts:
        raise UserError(
            f"the checkpoint lies {then['clips_done']} clips into an epoch of batches of {then['batch_size']}, where "
            f"no batch of {data['batch_size']} begins: set --batch_size={then['batch_size']}, {advice}"
        )
    if then["batch_size"] != data["batch_size"]:
        logger.info(
            "batch_size was %d and is %d: going on after the same %d clips of the epoch",
            then["batch_size"], data["batch_size"], then["clips_done"],
        )  # fmt: skip
    return starts.index(then["clips_done"])
