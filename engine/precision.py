"""In how many bits a network computes: as asked for, or the fastest that is proven."""

from __future__ import annotations

import argparse
import logging
from typing import TYPE_CHECKING, NamedTuple

from backends.engines import ExportEngine, Task
from backends.exported import Exported
from backends.gate import Precision, Record
from backends.precisions import PRECISIONS, REDUCED, QuantisedOnnx, Reduced, reduced
from core.errors import UserError, last_line
from engine.proof import Proof, chosen, loaded

if TYPE_CHECKING:
    from core.config import Config

logger = logging.getLogger("stnet")


class Proven(NamedTuple):
    """A network in fewer bits, with its record."""

    reduced: Reduced
    folder: str
    record: Record


def check_precision(wanted: Precision, engine: str) -> None:
    """Raise UserError where the precision is unknown, or is not what the engine of that name computes in."""
    if wanted.name not in PRECISIONS:
        raise UserError(f"precision {wanted.name!r:.20}: expected one of {', '.join(PRECISIONS)}")
    if not 0 < wanted.agreement <= 1:
        raise UserError(f"agreement {wanted.agreement}: expected a share above 0, at most 1")
    if wanted.name in REDUCED and engine not in ("auto", REDUCED[wanted.name]().runtime):
        raise UserError(f"precision {wanted.name} is computed by {REDUCED[wanted.name]().runtime}, not by {engine}")


def choose(task: Task, config: Config, wanted: Precision, engine: str = "auto") -> Proven | None:
    """What is to compute; None: float32, which is said and why. Raises UserError where what was asked for is refused.

    Args:
        config: whose section INFER the task is of.
        engine: name of the one that is to compute, or "auto".
    """
    if wanted.name == "fp32":
        return None
    if wanted.name != "auto":
        proven = prove(task, config, wanted)
        logger.info("precision %s: %s", wanted.name, proven.record.figures.words())
        return proven
    found: list[Proven] = []
    reasons: list[str] = []
    for name in REDUCED:
        if engine not in ("auto", REDUCED[name]().runtime):
            reasons.append(f"{name} is not computed by {engine}")
            continue
        try:
            found.append(prove(task, config, wanted._replace(name=name, unproven=False)))
        except Exception as error:  # runtimes and file systems have types of their own; float32 is there
            reasons.append(last_line(error) if isinstance(error, UserError) else f"{name}: {last_line(error)}")
    fastest = max(found, key=lambda proven: proven.record.figures.speedup, default=None)
    if fastest is not None and fastest.record.figures.speedup > 1:
        logger.info("precision auto: %s, %s", fastest.reduced.name, fastest.record.figures.words())
        return fastest
    reasons += [f"{slower.reduced.name} is not faster" for slower in found]
    logger.info("precision auto: fp32 (%s)", "; ".join(reasons))
    return None


def prove(task: Task, config: Config, wanted: Precision) -> Proven:
    """A precision by its kept proof, or by one made with the clips that are named. Raises UserError: it is refused."""
    kind = reduced(wanted.name)
    clips = chosen(wanted.calibrate, config) if wanted.calibrate else None
    proof = Proof(kind, task, config, clips, wanted.agreement)
    try:
        folder = proof.kept() if clips is None else proof.made()
    except OSError as error:
        raise UserError(f"precision {kind.name}: its proof cannot be kept: {error}") from None
    record = proof.record(folder) if folder else None
    if folder is None or record is None:
        raise UserError(f"precision {kind.name} has no proof for these weights and sizes on this processor", "no proof")
    reason = record.figures.refusal(wanted.agreement)
    if reason and not wanted.unproven:
        raise UserError(f"precision {kind.name} {reason}: {record.figures.words()}", "refused precision")
    if reason:
        logger.warning("precision %s %s; used all the same", kind.name, reason)
    return Proven(kind, folder, record)


def engine_of(proven: Proven, task: Task) -> Exported:
    """What computes the logits of a task's clips."""
    return loaded(proven.reduced.load, proven.folder, task)


def to_deploy(task: Task, config: Config, wanted: Precision, file_format: str) -> ExportEngine | None:
    """What writes the export of a task's network; None: it is one in float32. Raises UserError."""
    if wanted.name == "bf16":
        raise UserError("bf16 is how a float32 file is computed: there is no file of it", "precision of a file")
    if wanted.name == "fp32" or (wanted.name == "auto" and file_format != "onnx"):
        return None
    if file_format != "onnx":
        raise UserError(f"int8 is not written in the format {file_format}", "format of int8")
    try:
        proven = prove(task, config, wanted._replace(name="int8"))
    except UserError as error:
        if wanted.name != "auto":
            raise
        logger.info("precision auto: fp32 (%s)", error)
        return None
    logger.info("precision int8: %s", proven.record.figures.words())
    return QuantisedOnnx(f"{proven.folder}/{proven.reduced.file}", proven.record.plain())


def of_flags(args: argparse.Namespace) -> Precision:
    """What the flags ask for. Raises UserError where one would be without effect."""
    asked = Precision(args.precision or "fp32", args.calibrate, args.agreement, args.unproven)
    if asked.name == "fp32" and (asked.calibrate or asked.unproven):
        raise UserError("in fp32 nothing is calibrated, or proven", "precision")
    return asked
