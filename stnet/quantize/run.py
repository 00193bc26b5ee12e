"""Choice of the precision to compute in: the one asked for, or the fastest that passes validation."""

from __future__ import annotations

import argparse
import logging
import os
from typing import TYPE_CHECKING

from stnet.backends.engines import ExportEngine, Task, make_engine
from stnet.quantize.calibrate import chosen
from stnet.quantize.compare import Validated, Validation
from stnet.quantize.formats import LOW_PRECISION, PRECISIONS, QuantisedOnnx, low_precision_format
from stnet.quantize.networks import WholeNetwork
from stnet.quantize.report import Precision, ValidationReport
from stnet.utils.errors import UserError, last_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from stnet.backends.engines import Compute
    from stnet.config import Config
    from stnet.quantize.formats import LowPrecisionFormat
    from stnet.quantize.networks import LowPrecisionNetwork

    Form = Callable[[LowPrecisionFormat, Task], LowPrecisionNetwork]

logger = logging.getLogger("stnet")


def as_precision(asked: object, engine: str) -> Precision:
    """Convert a name to a Precision. Raises UserError: it is invalid, or the engine does not compute in it."""
    wanted = asked if isinstance(asked, Precision) else Precision(asked)  # type: ignore[arg-type]  # checked here
    if wanted.name not in PRECISIONS:
        raise UserError(f"precision {wanted.name!r:.40}: expected one of {', '.join(PRECISIONS)}")
    for name, share in (("agreement", wanted.agreement), ("difference", wanted.difference)):
        if type(share) not in (int, float) or not 0 < share <= 1:
            raise UserError(f"{name} {share!r:.40}: expected a number above 0, at most 1")
    if not isinstance(wanted.calibrate, (str, os.PathLike)):
        raise UserError(f"calibrate {wanted.calibrate!r:.40}: expected the path of a list or folder, or a glob")
    if wanted.name in LOW_PRECISION and engine not in ("auto", LOW_PRECISION[wanted.name]().runtime):
        raise UserError(
            f"precision {wanted.name} is computed by {LOW_PRECISION[wanted.name]().runtime}, not by {engine}"
        )
    return wanted


def choose(
    task: Task, config: Config, wanted: Precision, engine: str = "auto", form: Form = WholeNetwork
) -> Validated | None:
    """Choose the network to compute with; None: float32. Logs the reason. Raises UserError: the precision is refused.

    Args:
        config: whose section INFER the task is of.
        engine: name of an engine, or "auto".
        form: WholeNetwork or StagedLowPrecision.
    """
    if wanted.name == "fp32":
        return None
    if wanted.name != "auto":
        validated = validate(task, config, wanted, form)
        logger.info("precision %s: %s", wanted.name, validated.record)
        return validated
    fastest: Validated | None = None
    reasons: list[str] = []
    for name in LOW_PRECISION:
        if engine not in ("auto", LOW_PRECISION[name]().runtime):
            reasons.append(f"precision {name} is not computed by {engine}")
            continue
        try:
            validated = validate(task, config, wanted._replace(name=name, unproven=False), form)
        except UserError as error:
            reasons.append(last_line(error))
            continue
        except Exception as error:  # runtimes and file systems have exceptions of their own
            reasons.append(f"precision {name}: {last_line(error)}")
            continue
        if validated.record.speed.ratio > (fastest.record.speed.ratio if fastest else 1):
            reasons += [_slower(fastest)] if fastest else []
            fastest = validated
        else:
            reasons.append(_slower(validated))
    took = f"{fastest.low_precision_format.name}: {fastest.record}" if fastest else "fp32"
    logger.info("precision auto takes %s", "; ".join([took, *reasons]))
    return fastest


def computing(task: Task, config: Config, wanted: Precision, engine: str) -> tuple[Compute, ValidationReport | None]:
    """Make the engine for a task, with the validation report where it is not float32; as `choose`."""
    validated = choose(task, config, wanted, engine)
    if validated is None:
        return make_engine(engine, task.model, task.section, task.clips, task.digest), None
    return validated.engine, validated.record


def _slower(validated: Validated) -> str:
    return f"precision {validated.low_precision_format.name} is proven, {validated.record.speed}"


def validate(task: Task, config: Config, wanted: Precision, form: Form = WholeNetwork) -> Validated:
    """Validate a precision by the cached report, or on the clips that are named. Raises UserError: it is refused."""
    kind = low_precision_format(wanted.name)
    clips = chosen(os.fspath(wanted.calibrate), config) if wanted.calibrate else None
    try:
        return Validation(form(kind, task), task, config, clips, wanted).found()
    except OSError as error:
        raise UserError(f"precision {kind.name}: its proof cannot be kept: {error}") from None


def to_deploy(task: Task, config: Config, wanted: Precision, file_format: str) -> ExportEngine | None:
    """Make the engine that exports in low precision; None: export in float32. Raises UserError."""
    if wanted.name == "bf16":
        raise UserError(
            "bf16 is how a float32 file is computed: there is no file of it",
            "export in fp32, and compute in bf16 where it is used",
        )
    if wanted.name == "fp32" or (wanted.name == "auto" and file_format != "onnx"):
        return None
    if file_format != "onnx":
        raise UserError(f"int8 is not written in the format {file_format}", "set --format=onnx")
    try:
        validated = validate(task, config, wanted._replace(name="int8"))
    except UserError as error:
        if wanted.name != "auto":
            raise
        logger.info("precision auto takes fp32; %s", error)
        return None
    logger.info("precision int8: %s", validated.record)
    file = f"{validated.folder}/{validated.low_precision_format.file}"
    return QuantisedOnnx(file, validated.record.to_dict())


def of_flags(args: argparse.Namespace) -> Precision:
    """Convert flags to a Precision. Raises UserError where one would be without effect."""
    asked = Precision(args.precision or "fp32", args.calibrate, args.agreement, args.unproven, args.difference)
    typed = dict(args.typed)
    without = [name for name in ("calibrate", "agreement", "difference") if typed.get(name, "") != ""]
    without += ["unproven"] if args.unproven else []
    if asked.name == "fp32" and without:
        raise UserError(
            f"--{without[0]} is without effect: in fp32 nothing is proven", "set --precision to int8, bf16 or auto"
        )
    return asked
